"""Rows of memory <-> columns of a tile: registers are loaded along a row and turned by shuffles.

How a row's numbers are stored is known at run time only, so that one kernel serves them all; the
shuffles stand once, whatever is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, Emitter, loop
from mhakit.backends.cpu.storage import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64

__all__ = ["row_from_line", "rows_to_lines", "to_columns", "to_rows"]

_INT32 = ir.IntType(32)


class _Stored:
    """Loads and stores numbers as they are stored in memory, in the type of the emitter."""

    def __init__(self, kind: int, emit: Emitter) -> None:
        self.kind, self.emit, self.builder = kind, emit, emit.builder
        stored = {FLOAT16: ir.HalfType(), BFLOAT16: ir.IntType(16), BOOL: ir.IntType(8)}
        element = stored.get(kind, emit.element)
        self.type = ir.VectorType(element, emit.lanes) if emit.lanes else element

    def load(self, address: ir.Value) -> ir.Value:
        """Return what lies there, widened; of a bool 1 or 0."""
        builder, emit = self.builder, self.emit
        value = builder.load(builder.inttoptr(address, self.type.as_pointer()), align=1)
        if self.kind == FLOAT16:
            return builder.fpext(value, emit.type)
        if self.kind == BFLOAT16:
            wide = builder.shl(builder.zext(value, emit.int_type), emit.integer(16))
            return builder.bitcast(wide, emit.type)
        if self.kind == BOOL:
            zero = ir.Constant(value.type, None)
            return builder.uitofp(builder.icmp_unsigned("!=", value, zero), emit.type)
        return value

    def store(self, value: ir.Value, address: ir.Value) -> None:
        """Write a value there, rounded once to nearest, ties to even."""
        builder = self.builder
        if self.kind == FLOAT16:
            value = builder.fptrunc(value, self.type)
        elif self.kind == BFLOAT16:
            value = self._narrow(value)
        builder.store(value, builder.inttoptr(address, self.type.as_pointer()), align=1)

    def _narrow(self, value: ir.Value) -> ir.Value:
        builder, emit = self.builder, self.emit
        bits = builder.bitcast(value, emit.int_type)
        odd = builder.and_(builder.lshr(bits, emit.integer(16)), emit.integer(1))
        rounded = builder.lshr(
            builder.add(bits, builder.add(odd, emit.integer(0x7FFF))), emit.integer(16)
        )
        quiet = builder.or_(builder.lshr(bits, emit.integer(16)), emit.integer(0x40))
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.trunc(builder.select(is_nan, quiet, rounded), self.type)


def _by_kind(
    kind: ir.Value, emit: Emitter, body: Callable[[_Stored], list[ir.Value]], *, bools: bool
) -> list[ir.Value]:
    """Emit ``body`` for every way that numbers may be stored, and a switch on ``kind``."""
    builder = emit.builder
    kinds = [FLOAT64] if emit.double else [FLOAT32, FLOAT16, BFLOAT16]
    kinds += [BOOL] if bools else []
    joined = builder.append_basic_block("joined")
    arms = [builder.append_basic_block("stored") for _ in kinds]
    switch = builder.switch(kind, arms[0])
    results = []
    for stored, arm in zip(kinds, arms, strict=True):
        if stored != kinds[0]:
            switch.add_case(ir.Constant(INT64, stored), arm)
        builder.position_at_end(arm)
        results.append((body(_Stored(stored, emit)), builder.block))
        builder.branch(joined)
    builder.position_at_end(joined)
    phis = []
    for values in zip(*(values for values, _ in results), strict=True):
        phi = builder.phi(values[0].type)
        for value, (_, block) in zip(values, results, strict=True):
            phi.add_incoming(value, block)
        phis.append(phi)
    return phis


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

    def __init__(self, builder: ir.IRBuilder, real: Any, operands: Any, to_columns: bool) -> None:
        self.builder, self.to_columns = builder, to_columns
        self.vector, self.scalar = (Emitter(builder, real), Emitter(builder, real, 0))
        (self.kind, self.size, self.bases, self.lanes, self.count, self.tile, self.step,
         self.factors) = operands  # fmt: skip
        if to_columns:
            self.factor = {e: self._spread(e, self.factors) for e in (self.vector, self.scalar)}

    def write(self) -> None:
        """Emit the whole walk."""
        builder, W = self.builder, self.vector.lanes
        groups = builder.udiv(self.lanes, ir.Constant(INT64, W))

        def group(carried: list[ir.Value]) -> list[ir.Value]:
            bases, tile, factors = carried
            addresses = []
            for lane in range(W):
                place = builder.add(bases, ir.Constant(INT64, 8 * lane))
                pointer = builder.inttoptr(place, INT64.as_pointer())
                addresses.append(builder.load(pointer, align=8))
            self._along(addresses, tile, factors)
            width = ir.Constant(INT64, W * self.vector.item)
            return [
                builder.add(bases, ir.Constant(INT64, 8 * W)),
                builder.add(tile, width),
                factors if self.to_columns else builder.add(factors, width),
            ]

        loop(builder, groups, [self.bases, self.tile, self.factors], group)

    def _along(self, addresses: list[ir.Value], tile: ir.Value, factors: ir.Value) -> None:
        builder, W = self.builder, self.vector.lanes
        whole = builder.udiv(self.count, ir.Constant(INT64, W))
        rest = builder.sub(self.count, builder.mul(whole, ir.Constant(INT64, W)))

        def block(carried: list[ir.Value]) -> list[ir.Value]:
            offset, row = carried
            places = [
                builder.add(row, builder.mul(self.step, ir.Constant(INT64, j))) for j in range(W)
            ]
            self._move(self.vector, addresses, offset, places, factors)
            return [
                builder.add(offset, builder.mul(self.size, ir.Constant(INT64, W))),
                builder.add(row, builder.mul(self.step, ir.Constant(INT64, W))),
            ]

        def single(carried: list[ir.Value]) -> list[ir.Value]:
            offset, row = carried
            places = [
                builder.add(row, ir.Constant(INT64, lane * self.vector.item)) for lane in range(W)
            ]
            self._move(self.scalar, addresses, offset, places, factors)
            return [builder.add(offset, self.size), builder.add(row, self.step)]

        offset, row = loop(builder, whole, [ir.Constant(INT64, 0), tile], block)
        loop(builder, rest, [offset, row], single)

    def _move(
        self,
        emit: Emitter,
        addresses: list[ir.Value],
        offset: ir.Value,
        places: list[ir.Value],
        factors: ir.Value,
    ) -> None:
        """Move W rows of W numbers, or of one, between memory and the tile."""
        builder = self.builder
        ends = [builder.add(address, offset) for address in addresses]
        pointers = [builder.inttoptr(place, emit.type.as_pointer()) for place in places]
        align = emit.item * max(emit.lanes, 1)
        if self.to_columns:
            rows = _by_kind(
                self.kind, emit, lambda stored: [stored.load(end) for end in ends], bools=True
            )
            rows = [builder.fmul(row, self.factor[emit]) for row in rows]
            for value, pointer in zip(self._turned(rows, emit), pointers, strict=True):
                builder.store(value, pointer, align=align)
            return
        lines = self._turned([builder.load(pointer, align=align) for pointer in pointers], emit)
        lines = [self._scaled(emit, line, factors, lane) for lane, line in enumerate(lines)]

        def stores(stored: _Stored) -> list[ir.Value]:
            for line, end in zip(lines, ends, strict=True):
                stored.store(line, end)
            return []

        _by_kind(self.kind, emit, stores, bools=False)

    def _spread(self, emit: Emitter, number: ir.Value) -> ir.Value:
        return emit.spread(number) if emit.lanes else number

    def _scaled(self, emit: Emitter, line: ir.Value, factors: ir.Value, lane: int) -> ir.Value:
        """Return a lane's numbers times its factor; no zero is -0.0."""
        place = self.builder.add(factors, ir.Constant(INT64, lane * emit.item))
        pointer = self.builder.inttoptr(place, emit.element.as_pointer())
        factor = self.builder.load(pointer, align=emit.item)
        return emit.fma(line, self._spread(emit, factor), emit.number(0.0))

    def _turned(self, rows: list[ir.Value], emit: Emitter) -> list[ir.Value]:
        return _transpose(self.builder, rows) if emit.lanes else rows


def _turn(*, to_columns: bool) -> Any:
    """Make ``turn(real, kind, size, bases, lanes, count, tile, step, factor)``.

    ``bases`` is the address of each lane's row as int64; row i of the tile, ``step`` bytes long,
    holds number i of each lane's row, ``size`` bytes each in memory. To columns all numbers are
    multiplied by one ``factor``, to rows each lane's by its own, which lie at that address.
    """

    @intrinsic
    def turn(typing, real, kind, size, bases, lanes, count, tile, step, factor):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            _Turn(builder, sig.args[0], args[1:], to_columns).write()
            return context.get_dummy_value()

        given = real if to_columns else types.int64
        return types.void(real, *([types.int64] * 7), given), codegen

    return turn


def _along_line(
    builder: ir.IRBuilder,
    real: Any,
    row: ir.Value,
    size: ir.Value,
    count: ir.Value,
    line: ir.Value,
    move: Callable[[Emitter, ir.Value, ir.Value], None],
) -> None:
    """Emit ``move(emit, address in the row, address in the line)`` by registers, then by one."""
    at = [row, line]
    for emit in (Emitter(builder, real), Emitter(builder, real, 0)):
        width = emit.lanes or 1
        turns = builder.udiv(count, ir.Constant(INT64, width))
        count = builder.sub(count, builder.mul(turns, ir.Constant(INT64, width)))

        def turn(
            carried: list[ir.Value], emit: Emitter = emit, width: int = width
        ) -> list[ir.Value]:
            source, target = carried
            move(emit, source, builder.inttoptr(target, emit.type.as_pointer()))
            return [
                builder.add(source, builder.mul(size, ir.Constant(INT64, width))),
                builder.add(target, ir.Constant(INT64, width * emit.item)),
            ]

        at = loop(builder, turns, at, turn)


@intrinsic
def rows_to_lines(typing, real, kind, size, row, step, rows, count, line, line_step):
    """Write rows of ``count`` neighbours in memory, at any address, to lines of the type of real.

    ``step`` and ``line_step`` are the bytes between rows and between lines.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, kind, size, row, step, rows, count, line, line_step = args
        real = sig.args[0]

        def all_rows(stored: _Stored) -> list[ir.Value]:
            def move(emit: Emitter, source: ir.Value, pointer: ir.Value) -> None:
                value = _Stored(stored.kind, emit).load(source)
                builder.store(value, pointer, align=emit.item)

            def one(carried: list[ir.Value]) -> list[ir.Value]:
                source, target = carried
                _along_line(builder, real, source, size, count, target, move)
                return [builder.add(source, step), builder.add(target, line_step)]

            loop(builder, rows, [row, line], one)
            return []

        _by_kind(kind, Emitter(builder, real), all_rows, bools=False)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 8)), codegen


@intrinsic
def row_from_line(typing, real, kind, size, row, count, line, factor):
    """Write a line times ``factor``, rounded once, to neighbours in memory; no zero is -0.0."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, kind, size, row, count, line, factor = args

        def move(emit: Emitter, source: ir.Value, pointer: ir.Value) -> None:
            scale = emit.spread(factor) if emit.lanes else factor
            value = builder.fmul(builder.load(pointer, align=emit.item), scale)
            value = builder.fadd(value, emit.number(0.0))

            def store(stored: _Stored) -> list[ir.Value]:
                stored.store(value, source)
                return []

            _by_kind(kind, emit, store, bools=False)

        _along_line(builder, sig.args[0], row, size, count, line, move)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 5), real), codegen


to_columns, to_rows = _turn(to_columns=True), _turn(to_columns=False)
