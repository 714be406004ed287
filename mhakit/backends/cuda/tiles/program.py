"""A tile kernel as a function for Numba: one intrinsic that emits it all."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import cuda, types
from numba.cuda.extending import intrinsic

from mhakit.backends.cuda.tiles.attention import attend
from mhakit.backends.cuda.tiles.fields import FLOATS, INTEGERS
from mhakit.backends.cuda.tiles.ptx import Ptx
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["SIGNATURE", "program"]

SIGNATURE = (
    types.UniTuple(types.int64, len(INTEGERS)),
    types.UniTuple(types.float32, len(FLOATS)),
)


def program(variant: Variant, kernel: Callable[..., None] = attend) -> Callable[..., None]:
    """Return a Python function of `SIGNATURE` that Numba compiles into the kernel."""

    @intrinsic
    def body(typing: Any, integers: Any, floats: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            fields = [
                [builder.extract_value(part, i) for i in range(len(kind))]
                for part, kind in zip(args, signature.args, strict=True)
            ]
            kernel(Ptx(builder, variant.dtype, *fields), variant)
            return context.get_dummy_value()

        return types.void(integers, floats), codegen

    def run(integers, floats):
        body(integers, floats)

    return run
