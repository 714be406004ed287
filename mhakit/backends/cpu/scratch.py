"""Scratch: the tiles of one worker, or what an item keeps between two launches.

A worker asks once for all of it. Memory that is refused raises nothing in a kernel, where an
exception would be printed and what was had until then lost: the worker leaves without its `end`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mhakit.backends.cpu.arrays import array
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.memory import address
from mhakit.backends.cpu.simd import VECTOR_BYTES

__all__ = ["release", "reserve", "state_of", "state_size"]

_BYTES = ir.IntType(8).as_pointer()
_INT64 = ir.IntType(64)

REFUSED = 2**60
"""Bytes that no machine has: what is asked for where the true number does not fit in an int64."""


@intrinsic
def reserve(typing: Any, real: Any, integers: Any, shapes: Any) -> Any:
    """Return a room, 0 where it is refused, and in it a tile of int64 and one of each shape.

    ``integers`` and ``shapes`` are (rows, columns); tiles begin where a register can be loaded.
    """
    pair = types.UniTuple(types.int64, 2)
    kinds = types.Array(types.int64, 2, "C"), types.Array(real, 2, "C")

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        tiles = [(kinds[0], args[1])]
        tiles += [(kinds[1], shape) for shape in cgutils.unpack_tuple(builder, args[2])]
        size, asked = ir.Constant(_INT64, VECTOR_BYTES), ir.Constant(ir.DoubleType(), 0)
        offsets = []
        for kind, shape in tiles:
            numbers = [builder.sitofp(n, ir.DoubleType()) for n in _sides(builder, shape)]
            asked = builder.fadd(asked, builder.fmul(*numbers))
            offsets.append(size)
            size = builder.add(size, _whole_registers(context, builder, kind, shape))
        fits = builder.fcmp_ordered("<", asked, ir.Constant(ir.DoubleType(), REFUSED / 16))
        size = builder.select(fits, size, ir.Constant(_INT64, REFUSED))
        room = builder.ptrtoint(_runtime(builder, "NRT_Allocate", _BYTES, size), _INT64)
        first = builder.and_(room, ir.Constant(_INT64, -VECTOR_BYTES))
        made = [
            _tile(context, builder, kind, builder.add(first, offset), shape)
            for (kind, shape), offset in zip(tiles, offsets, strict=True)
        ]
        rest = context.make_tuple(builder, sig.return_type[2], made[1:])
        return context.make_tuple(builder, sig.return_type, (room, made[0], rest))

    result = types.Tuple((types.int64, kinds[0], types.UniTuple(kinds[1], len(shapes))))
    return result(real, pair, types.UniTuple(pair, len(shapes))), codegen


def _runtime(builder: ir.IRBuilder, name: str, result: ir.Type, value: ir.Value) -> ir.Value:
    """Call a function of Numba's runtime, which is off for what else would count references."""
    kind = ir.FunctionType(result, [value.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [value])


def _sides(builder: ir.IRBuilder, shape: ir.Value) -> list[ir.Value]:
    return [builder.extract_value(shape, side) for side in range(2)]


def _whole_registers(context: Any, builder: ir.IRBuilder, kind: Any, shape: ir.Value) -> ir.Value:
    """Return the bytes of a tile, up to where the next one may begin."""
    item = ir.Constant(_INT64, kind.dtype.bitwidth // 8)
    size = builder.mul(builder.mul(*_sides(builder, shape)), item)
    more = builder.add(size, ir.Constant(_INT64, VECTOR_BYTES - 1))
    return builder.and_(more, ir.Constant(_INT64, -VECTOR_BYTES))


def _tile(context: Any, builder: ir.IRBuilder, kind: Any, place: Any, shape: Any) -> ir.Value:
    data = builder.inttoptr(place, context.get_data_type(kind.dtype).as_pointer())
    return array(context, builder, kind, data, _sides(builder, shape))


@intrinsic
def release(typing: Any, room: Any) -> Any:
    """Give a room back."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _runtime(builder, "NRT_Free", ir.VoidType(), builder.inttoptr(args[0], _BYTES))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@inlined
def state_size(call):
    """Return how many numbers of state a worker needs: none where items in flight have theirs."""
    return call.state_bytes // call.item if call.state == 0 else 0


@inlined
def state_of(call, item, own):
    """Return where the state of an item lies: among those in flight, or in the worker's own."""
    if call.state == 0:
        return address(own)
    return call.state + (item - call.first_item) * call.state_bytes
