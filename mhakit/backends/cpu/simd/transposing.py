"""Rows of memory <-> columns of a tile: registers are loaded along a row and turned by shuffles."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, Emitter, loop

__all__ = [
    "bfloat16_to_columns",
    "bfloat16_to_rows",
    "bool_to_columns",
    "float16_to_columns",
    "float16_to_rows",
    "native_to_columns",
    "native_to_rows",
    "widen_bfloat16",
    "widen_float16",
]

_INT32 = ir.IntType(32)


class _Rows:
    """Loads and stores ``count`` neighbours of a row, as stored in memory, in the type of real."""

    def __init__(self, kind: str, builder: ir.IRBuilder, real: Any) -> None:
        self.kind, self.builder, self.real = kind, builder, real
        stored = {"float16": ir.HalfType(), "bfloat16": ir.IntType(16), "bool": ir.IntType(8)}
        self.stored = stored.get(kind, ir.DoubleType() if real == types.float64 else ir.FloatType())
        sizes = {"float16": 2, "bfloat16": 2, "bool": 1}
        self.size = sizes.get(kind, 8 if real == types.float64 else 4)

    def _pointer(self, address: ir.Value, emit: Emitter) -> ir.Value:
        kind = ir.VectorType(self.stored, emit.lanes) if emit.lanes else self.stored
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address: ir.Value, emit: Emitter) -> ir.Value:
        """Return what lies there, widened; of a bool 1 or 0."""
        builder = self.builder
        value = builder.load(self._pointer(address, emit), align=1)
        if self.kind == "float16":
            return builder.fpext(value, emit.type)
        if self.kind == "bfloat16":
            wide = builder.shl(builder.zext(value, emit.int_type), emit.integer(16))
            return builder.bitcast(wide, emit.type)
        if self.kind == "bool":
            zero = ir.Constant(value.type, None)
            return builder.uitofp(builder.icmp_unsigned("!=", value, zero), emit.type)
        return value

    def store(self, value: ir.Value, address: ir.Value, emit: Emitter) -> None:
        """Write a value there, rounded once to nearest, ties to even."""
        builder = self.builder
        if self.kind == "float16":
            half = ir.VectorType(self.stored, emit.lanes) if emit.lanes else self.stored
            value = builder.fptrunc(value, half)
        elif self.kind == "bfloat16":
            value = self._narrow(value, emit)
        builder.store(value, self._pointer(address, emit), align=1)

    def _narrow(self, value: ir.Value, emit: Emitter) -> ir.Value:
        builder = self.builder
        bits = builder.bitcast(value, emit.int_type)
        odd = builder.and_(builder.lshr(bits, emit.integer(16)), emit.integer(1))
        rounded = builder.lshr(
            builder.add(bits, builder.add(odd, emit.integer(0x7FFF))), emit.integer(16)
        )
        quiet = builder.or_(builder.lshr(bits, emit.integer(16)), emit.integer(0x40))
        is_nan = builder.fcmp_unordered("uno", value, value)
        narrow = ir.VectorType(self.stored, emit.lanes) if emit.lanes else self.stored
        return builder.trunc(builder.select(is_nan, quiet, rounded), narrow)


def _transpose(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Turn W registers of W numbers: swap one bit of the row with the same bit of the lane."""
    lanes = len(rows)
    rows = list(rows)
    bit = 1
    while bit < lanes:
        low = [k if not k & bit else lanes + (k ^ bit) for k in range(lanes)]
        high = [k ^ bit if not k & bit else lanes + k for k in range(lanes)]
        masks = [ir.Constant(ir.VectorType(_INT32, lanes), indices) for indices in (low, high)]
        for i in range(lanes):
            if not i & bit:
                pair = rows[i], rows[i | bit]
                rows[i], rows[i | bit] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        bit *= 2
    return rows


class _Turn:
    """Emits a walk over the lanes of a tile, a register at a time, and along their rows."""

    def __init__(self, kind: str, builder: ir.IRBuilder, real: Any, operands: Any) -> None:
        self.builder = builder
        self.vector, self.scalar = (Emitter(builder, real, vector=v) for v in (True, False))
        self.rows = _Rows(kind, builder, real)
        self.bases, self.lanes, self.count, self.tile, self.step = operands

    def write(self, to_columns: bool) -> None:
        """Emit the whole walk."""
        builder, W = self.builder, self.vector.lanes
        groups = builder.udiv(self.lanes, ir.Constant(INT64, W))

        def group(carried: list[ir.Value]) -> list[ir.Value]:
            bases, tile = carried
            addresses = []
            for lane in range(W):
                place = builder.add(bases, ir.Constant(INT64, 8 * lane))
                pointer = builder.inttoptr(place, INT64.as_pointer())
                addresses.append(builder.load(pointer, align=8))
            self._along(addresses, tile, to_columns)
            return [
                builder.add(bases, ir.Constant(INT64, 8 * W)),
                builder.add(tile, ir.Constant(INT64, W * self.vector.item)),
            ]

        loop(builder, groups, [self.bases, self.tile], group)

    def _along(self, addresses: list[ir.Value], tile: ir.Value, to_columns: bool) -> None:
        builder, W = self.builder, self.vector.lanes
        whole = builder.udiv(self.count, ir.Constant(INT64, W))
        rest = builder.sub(self.count, builder.mul(whole, ir.Constant(INT64, W)))

        def block(carried: list[ir.Value]) -> list[ir.Value]:
            offset, row = carried
            numbers = [ir.Constant(INT64, j) for j in range(W)]
            places = [builder.add(row, builder.mul(self.step, j)) for j in numbers]
            ends = [builder.add(address, offset) for address in addresses]
            if to_columns:
                columns = _transpose(builder, [self.rows.load(end, self.vector) for end in ends])
                for column, place in zip(columns, places, strict=True):
                    self.vector.store(column, place)
            else:
                lines = _transpose(builder, [self.vector.load(place) for place in places])
                for line, end in zip(lines, ends, strict=True):
                    self.rows.store(line, end, self.vector)
            return [
                builder.add(offset, ir.Constant(INT64, W * self.rows.size)),
                builder.add(row, builder.mul(self.step, ir.Constant(INT64, W))),
            ]

        def single(carried: list[ir.Value]) -> list[ir.Value]:
            offset, row = carried
            for lane, address in enumerate(addresses):
                place = builder.add(row, ir.Constant(INT64, lane * self.vector.item))
                pointer = builder.inttoptr(place, self.scalar.type.as_pointer())
                end = builder.add(address, offset)
                if to_columns:
                    builder.store(self.rows.load(end, self.scalar), pointer)
                else:
                    self.rows.store(builder.load(pointer), end, self.scalar)
            return [
                builder.add(offset, ir.Constant(INT64, self.rows.size)),
                builder.add(row, self.step),
            ]

        offset, row = loop(builder, whole, [ir.Constant(INT64, 0), tile], block)
        loop(builder, rest, [offset, row], single)


def _turn(kind: str, *, to_columns: bool) -> Any:
    """Make ``turn(real, bases, lanes, count, tile, step)``, all but real addresses or sizes.

    ``bases`` holds the address of each lane's row as int64; row i of the tile, ``step`` bytes
    long, holds number i of each lane's row.
    """

    @intrinsic
    def turn(typing, real, bases, lanes, count, tile, step):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            if not (sig.args[0] == types.float64 and kind.endswith("float16")):  # never together
                _Turn(kind, builder, sig.args[0], args[1:]).write(to_columns)
            return context.get_dummy_value()

        return types.void(real, *([types.int64] * 5)), codegen

    return turn


def _widen_row(kind: str) -> Any:
    """Make ``widen(real, row, count, out)``: neighbours in memory, widened to the type of real."""

    @intrinsic
    def widen(typing, real, row, count, out):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            _, row, count, out = args
            if sig.args[0] == types.float64:  # 16 bits widen to float32 only
                return context.get_dummy_value()
            rows = _Rows(kind, builder, sig.args[0])
            at = [row, out]
            for vector in (True, False):
                emit = Emitter(builder, sig.args[0], vector=vector)
                width = emit.lanes or 1
                turns = builder.udiv(count, ir.Constant(INT64, width))
                count = builder.sub(count, builder.mul(turns, ir.Constant(INT64, width)))

                def move(
                    carried: list[ir.Value], emit: Emitter = emit, width: int = width
                ) -> list[ir.Value]:
                    source, target = carried
                    pointer = builder.inttoptr(target, emit.type.as_pointer())
                    builder.store(rows.load(source, emit), pointer, align=emit.item)
                    return [
                        builder.add(source, ir.Constant(INT64, width * rows.size)),
                        builder.add(target, ir.Constant(INT64, width * emit.item)),
                    ]

                at = loop(builder, turns, at, move)
            return context.get_dummy_value()

        return types.void(real, *([types.int64] * 3)), codegen

    return widen


native_to_columns, native_to_rows = (_turn("native", to_columns=way) for way in (True, False))
float16_to_columns, float16_to_rows = (_turn("float16", to_columns=way) for way in (True, False))
bfloat16_to_columns, bfloat16_to_rows = (_turn("bfloat16", to_columns=way) for way in (True, False))
bool_to_columns = _turn("bool", to_columns=True)
widen_float16, widen_bfloat16 = _widen_row("float16"), _widen_row("bfloat16")
