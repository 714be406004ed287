"""Rows of memory <-> columns of a tile: registers are loaded along a row and turned by shuffles.

The shuffles stand once, whatever is loaded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, Emitter
from mhakit.backends.cpu.simd.looping import loop
from mhakit.backends.cpu.simd.stored import Stored, by_kind

__all__ = ["to_columns", "to_rows"]

_INT32 = ir.IntType(32)


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
            self.ahead = builder.mul(self.count, self.size)
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
            if self.to_columns:
                for address in addresses:
                    self.vector.fetch(builder.add(builder.add(address, offset), self.ahead))
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
            rows = by_kind(
                self.kind, emit, lambda stored: [stored.load(end) for end in ends], bools=True
            )
            rows = [builder.fmul(row, self.factor[emit]) for row in rows]
            for value, pointer in zip(self._turned(rows, emit), pointers, strict=True):
                builder.store(value, pointer, align=align)
            return
        lines = self._turned([builder.load(pointer, align=align) for pointer in pointers], emit)
        lines = [self._scaled(emit, line, factors, lane) for lane, line in enumerate(lines)]

        def stores(stored: Stored) -> list[ir.Value]:
            for line, end in zip(lines, ends, strict=True):
                stored.store(line, end)
            return []

        by_kind(self.kind, emit, stores, bools=False)

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
    multiplied by one ``factor``, to rows each lane's by its own, which lie at that address. To
    columns the memory is asked for as many numbers of each row again: a tile often reads on there.
    """

    @intrinsic
    def turn(typing, real, kind, size, bases, lanes, count, tile, step, factor):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            _Turn(builder, sig.args[0], args[1:], to_columns).write()
            return context.get_dummy_value()

        given = real if to_columns else types.int64
        return types.void(real, *([types.int64] * 7), given), codegen

    return turn


to_columns, to_rows = _turn(to_columns=True), _turn(to_columns=False)
