"""One number in memory, read or written at its address, widened or rounded on the way.

Numba has no float16 and no bfloat16 on the CPU: both are 16 bits that become a float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.storage import FLOAT16, FLOAT32, FLOAT64

__all__ = [
    "NEAR",
    "address",
    "end",
    "fetch_add",
    "read",
    "read_bool",
    "read_int64",
    "read_near",
    "take",
    "write",
]

NEAR = 2**30
"""What is below it in size is told by 32 bits, and so is its distance from another such."""

_INT64 = ir.IntType(64)
_INT32 = ir.IntType(32)
_INT16 = ir.IntType(16)


def _reader(
    result: Any, element: ir.Type, widen: Callable[[ir.IRBuilder, ir.Value], ir.Value] | None = None
) -> Any:
    @intrinsic
    def read(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            value = builder.load(builder.inttoptr(args[0], element.as_pointer()), align=1)
            return widen(builder, value) if widen else value

        return result(types.int64), codegen

    return read


def _writer(
    given: Any, element: ir.Type, narrow: Callable[[ir.IRBuilder, ir.Value], ir.Value] | None = None
) -> Any:
    @intrinsic
    def write(typing: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            value = narrow(builder, args[1]) if narrow else args[1]
            builder.store(value, builder.inttoptr(args[0], element.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, given), codegen

    return write


def _widen_bfloat16(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    wide = builder.shl(builder.zext(bits, _INT32), ir.Constant(_INT32, 16))
    return builder.bitcast(wide, ir.FloatType())


def _narrow_bfloat16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Round to nearest, ties to even; NaN keeps its sign and stays NaN."""
    bits = builder.bitcast(value, _INT32)
    sixteen = ir.Constant(_INT32, 16)
    odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(_INT32, 1))
    rounded = builder.lshr(
        builder.add(bits, builder.add(odd, ir.Constant(_INT32, 0x7FFF))), sixteen
    )
    quiet = builder.or_(builder.lshr(bits, sixteen), ir.Constant(_INT32, 0x40))
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(is_nan, quiet, rounded), _INT16)


_read_float64 = _reader(types.float64, ir.DoubleType())
_read_float32 = _reader(types.float32, ir.FloatType())
_read_float16 = _reader(types.float32, ir.HalfType(), lambda b, x: b.fpext(x, ir.FloatType()))
_read_bfloat16 = _reader(types.float32, _INT16, _widen_bfloat16)
read_int64 = _reader(types.int64, _INT64)
read_bool = _reader(
    types.boolean,
    ir.IntType(8),
    lambda b, x: b.icmp_unsigned("!=", x, ir.Constant(ir.IntType(8), 0)),
)
_write_float64 = _writer(types.float64, ir.DoubleType())
_write_float32 = _writer(types.float32, ir.FloatType())
_write_float16 = _writer(types.float32, ir.HalfType(), lambda b, x: b.fptrunc(x, ir.HalfType()))
_write_bfloat16 = _writer(types.float32, _INT16, _narrow_bfloat16)


@intrinsic
def fetch_add(typing: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at ``address``, atomically, and return what it was."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _INT64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Return where an array begins, as a signed integer: unsigned ones make sums of floats."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _INT64)

    return types.int64(array), codegen


@intrinsic
def read_near(typing: Any, numbers: Any, i: Any) -> Any:
    """Return an int32 of an array, which is promised to be within `NEAR` of 0, as an int64.

    By that promise LLVM keeps what is computed from two such, their difference, in 32 bits.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        number = builder.load(builder.gep(data, [args[1]], inbounds=True))
        bounds = [ir.Constant(_INT32, -NEAR), ir.Constant(_INT32, NEAR)]
        number.set_metadata("range", builder.module.add_metadata(bounds))
        return builder.sext(number, _INT64)

    return types.int64(numbers, types.int64), codegen


@inlined
def take(calls):
    """Return the next work item of a record that begins with `mhakit.backends.cpu.record.HEAD`."""
    return fetch_add(address(calls), 1)


@inlined
def end(calls):
    """Say that this worker found nothing left."""
    fetch_add(address(calls) + 24, 1)


@inlined
def read(real, kind, address):
    """Return the number stored as ``kind`` at ``address``, in the type of ``real``."""
    cast = type(real)
    if kind == FLOAT32:
        return cast(_read_float32(address))
    if kind == FLOAT64:
        return cast(_read_float64(address))
    if kind == FLOAT16:
        return cast(_read_float16(address))
    return cast(_read_bfloat16(address))


@inlined
def write(kind, address, value):
    """Store ``value`` as ``kind`` at ``address``, rounded once."""
    if kind == FLOAT32:
        _write_float32(address, types.float32(value))
    elif kind == FLOAT64:
        _write_float64(address, types.float64(value))
    elif kind == FLOAT16:
        _write_float16(address, types.float32(value))
    else:
        _write_bfloat16(address, types.float32(value))
