"""The lesser and the greater of two integers.

Numba compiles the builtins of Python as functions of their own, one for every form of a call.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["greater", "lesser"]


def _choice(relation: str) -> Any:
    @intrinsic
    def choose(typing: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(relation, *args), *args)

        return types.int64(types.int64, types.int64), codegen

    return choose


lesser, greater = _choice("<"), _choice(">")
