"""Arrays over memory that is there already, which nobody counts.

Numba's `carray` makes the same by a function that it compiles for every form of a call.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["array", "numbers_at", "records_at"]

_INT64 = ir.IntType(64)


def array(
    context: Any, builder: ir.IRBuilder, kind: Any, data: ir.Value, sides: list[ir.Value]
) -> ir.Value:
    """Return the array of a type, C-contiguous and nobody's own, that lies at a pointer."""
    from numba.np.arrayobj import populate_array  # a tenth of what a warm process waits for

    item = ir.Constant(_INT64, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [item]
    for side in sides[:0:-1]:
        strides.insert(0, builder.mul(strides[0], side))
    made = context.make_array(kind)(context, builder)
    populate_array(made, data, sides, strides, item, None)
    return made._getvalue()


@intrinsic
def numbers_at(typing: Any, real: Any, place: Any, shape: Any) -> Any:
    """Return the numbers of the type of ``real`` at an address as an array.

    ``shape`` is an integer or a tuple.
    """
    flat = isinstance(shape, types.Integer)
    sides = types.int64 if flat else types.UniTuple(types.int64, len(shape))
    kind = types.Array(real, 1 if flat else len(shape), "C")

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        data = builder.inttoptr(args[1], context.get_data_type(real).as_pointer())
        sides = [args[2]] if flat else cgutils.unpack_tuple(builder, args[2])
        return array(context, builder, kind, data, sides)

    return kind(real, types.int64, sides), codegen


@intrinsic
def records_at(typing: Any, first: Any, count: Any) -> Any:
    """Return the records that begin where a pointer points as an array."""
    kind = types.Array(first.dtype, 1, "C")

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return array(context, builder, kind, args[0], [args[1]])

    return kind(first, types.int64), codegen
