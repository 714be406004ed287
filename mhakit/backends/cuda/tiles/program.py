"""A tile kernel as a function for Numba: one intrinsic that emits it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda, types
from numba.cuda.extending import intrinsic

from mhakit.backends.cuda.tiles.fields import FLOATS, INTEGERS
from mhakit.backends.cuda.tiles.kernels import AnyVariant, kernel_of
from mhakit.backends.cuda.tiles.ptx import Ptx
from mhakit.backends.user_functions import body_of, refuse_raising

__all__ = ["SIGNATURE", "program"]

SIGNATURE = (
    types.UniTuple(types.int64, len(INTEGERS)),
    types.UniTuple(types.float32, len(FLOATS)),
)


def program(
    variant: AnyVariant,
    kernel: Callable[..., None] | None = None,
    score_mod: Callable[..., Any] | None = None,
    *,
    capability: tuple[int, int] = (9, 0),
) -> Callable[..., None]:
    """Return a Python function of `SIGNATURE` that Numba compiles into the kernel.

    It is the variant's own ``kernel`` unless another is given. With a ``score_mod`` it takes a
    tuple of its further arguments after them. ``capability`` is that of the device it is for.
    """
    modifier = None
    if score_mod is not None:
        refuse_raising(score_mod)
        modifier = cuda.jit(device=True)(body_of(score_mod))

    def typed(typing: Any, integers: Any, floats: Any, arguments: Any) -> Any:
        numbers = (types.float32, *[types.int32] * 4, *arguments)
        if modifier is not None:
            kind = typing.resolve_value_type(modifier)
            call = kind.get_call_type(typing, numbers, {})

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            parts = [
                [builder.extract_value(part, i) for i in range(len(kind))]
                for part, kind in zip(args, signature.args, strict=True)
            ]

            def modify(*numbers: Any) -> Any:
                function = context.get_function(kind, call)
                result = function(builder, [*numbers, *parts[2]])
                return context.cast(builder, result, call.return_type, types.float32)

            emit = kernel_of(variant) if kernel is None else kernel
            machine = Ptx(
                builder, variant.dtype, parts[0], parts[1], modify,
                asynchronous=capability >= (8, 0),
            )  # fmt: skip
            emit(machine, variant)
            return context.get_dummy_value()

        return types.void(integers, floats, arguments), codegen

    body = intrinsic(typed)

    def run(integers, floats):
        body(integers, floats, ())

    def run_modified(integers, floats, arguments):
        body(integers, floats, arguments)

    return run if modifier is None else run_modified
