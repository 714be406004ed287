"""Products along the width of a row, for few targets: registers hold D or E, not targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, LINE, VECTOR_BYTES, Emitter
from mhakit.backends.cpu.simd.looping import loop

__all__ = ["add_weighted_rows", "all_finite", "dot_rows", "line_top", "line_weights"]

# Queries whose dots are summed at once; and registers of a row, times queries, whose weighted sums
# stay in registers: AVX2 has 16 of them, AVX-512 and NEON have 32.
_QUERIES = 4
_CHUNK, _SUM_QUERIES = 4 if VECTOR_BYTES == 32 else 8, 2

_AHEAD = 2**13
"""Bytes of rows between one that is read and the one that the memory is asked for."""

_SUMS = max(64 // VECTOR_BYTES, 1)
"""Registers that a line is summed in: its sums are as short where registers are narrow."""


class _Along:
    """What both products share: registers of a row, and loops over groups of a count."""

    def __init__(self, builder: ir.IRBuilder, real: Any) -> None:
        self.builder = builder
        self.emit = Emitter(builder, real)
        self.size = self.emit.lanes * self.emit.item

    def times(self, value: ir.Value, count: int) -> ir.Value:
        return self.builder.mul(value, ir.Constant(INT64, count))

    def plus(self, value: ir.Value, count: int) -> ir.Value:
        return self.builder.add(value, ir.Constant(INT64, count))

    def ahead(self, stride: ir.Value, step: ir.Value) -> ir.Value:
        """Return the bytes from a row to the one to ask for, a whole number of rows."""
        rows = self.builder.udiv(ir.Constant(INT64, _AHEAD), step)
        return self.builder.mul(rows, stride)

    def groups(
        self,
        count: ir.Value,
        sizes: tuple[int, ...],
        carried: list[ir.Value],
        steps: list[ir.Value | int],
        body: Callable[[int, list[ir.Value]], None],
    ) -> None:
        """Emit ``body`` for groups of the first size, then of the next for what is left.

        ``carried`` are addresses, which grow by ``steps`` with each one of the count.
        """
        builder = self.builder
        for size in sizes:
            turns = builder.udiv(count, ir.Constant(INT64, size))
            count = builder.sub(count, self.times(turns, size))

            def turn(at: list[ir.Value], size: int = size) -> list[ir.Value]:
                body(size, at)
                return [
                    self.plus(place, size * step)
                    if isinstance(step, int)
                    else builder.add(place, self.times(step, size))
                    for place, step in zip(at, steps, strict=True)
                ]

            carried = loop(builder, turns, carried, turn)


@intrinsic
def dot_rows(typing, real, rows, stride, count, queries, pitch, number, step, out, line):
    """out[q, i] = rows[i] . queries[q] for ``count`` rows and ``number`` queries.

    ``rows``, ``queries`` and ``out`` are addresses, ``stride``, ``pitch`` and ``line`` the bytes
    between their rows; queries are aligned, and ``step`` is the bytes of a row, a whole number of
    registers. Each dot sums its lanes in the order of the row, then as a tree: its bits depend on
    nothing beside it.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, rows, stride, count, queries, pitch, number, step, out, line = args
        along = _Along(builder, sig.args[0])
        emit, size = along.emit, along.size
        registers = builder.udiv(step, ir.Constant(INT64, size))

        ahead = along.ahead(stride, step)

        def of_row(_: int, at: list[ir.Value]) -> None:
            row, place = at
            later = builder.add(row, ahead)

            def of_queries(Q: int, at: list[ir.Value]) -> None:
                asked = [builder.add(at[0], along.times(pitch, q)) for q in range(Q)]

                def turn(inner: list[ir.Value]) -> list[ir.Value]:
                    offset, *sums = inner
                    loaded = emit.load_anywhere(builder.add(row, offset))
                    emit.fetch(builder.add(later, offset))
                    numbers = [emit.load(builder.add(query, offset)) for query in asked]
                    added = [
                        emit.fma(loaded, n, kept) for n, kept in zip(numbers, sums, strict=True)
                    ]
                    return [along.plus(offset, size), *added]

                begin = [ir.Constant(INT64, 0), *[emit.number(0.0)] * Q]
                _, *sums = loop(builder, registers, begin, turn)
                for q in range(Q):
                    to = builder.add(at[1], along.times(line, q))
                    pointer = builder.inttoptr(to, emit.element.as_pointer())
                    builder.store(emit.across(sums[q], builder.fadd), pointer, align=emit.item)

            along.groups(number, (_QUERIES, 1), [queries, place], [pitch, line], of_queries)

        # one row after the other: several at once, even four neighbours, are read at a third of the
        # speed (no prefetcher follows them)
        along.groups(count, (1,), [rows, out], [stride, emit.item], of_row)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 9)), codegen


@intrinsic
def add_weighted_rows(typing, real, rows, stride, count, weights, line, number, step, sums, pitch):
    """sums[q] += the sum over i of weights[q, i] * rows[i]; a weight of -0.0 hides a row.

    All are addresses and bytes as in `dot_rows`; ``sums`` is aligned and its rows ``step`` bytes
    long, a whole number of registers, which every row can be read for.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, rows, stride, count, weights, line, number, step, sums, pitch = args
        along = _Along(builder, sig.args[0])
        emit, size = along.emit, along.size
        registers = builder.udiv(step, ir.Constant(INT64, size))
        ahead = along.ahead(stride, step)

        def of_queries(Q: int, at: list[ir.Value]) -> None:
            weight, total = at
            asked = [builder.add(weight, along.times(line, q)) for q in range(Q)]
            held = [builder.add(total, along.times(pitch, q)) for q in range(Q)]

            def of_registers(C: int, at: list[ir.Value]) -> None:
                (offset,) = at
                places = [
                    along.plus(builder.add(to, offset), c * size) for to in held for c in range(C)
                ]

                def turn(inner: list[ir.Value]) -> list[ir.Value]:
                    row, place, *totals = inner
                    loaded = [emit.load_anywhere(along.plus(row, c * size)) for c in range(C)]
                    for c in range(0, C * size, LINE):
                        emit.fetch(along.plus(builder.add(row, ahead), c))
                    following = []
                    for q in range(Q):
                        factor = emit.splat(builder.add(asked[q], place))
                        seen = emit.is_not_hidden(factor)
                        for c in range(C):
                            kept = totals[q * C + c]
                            following.append(emit.fma_seen(seen, loaded[c], factor, kept))
                    return [builder.add(row, stride), along.plus(place, emit.item), *following]

                begin = [builder.add(rows, offset), ir.Constant(INT64, 0)]
                _, _, *totals = loop(
                    builder, count, begin + [emit.load(place) for place in places], turn
                )
                for kept, place in zip(totals, places, strict=True):
                    emit.store(kept, place)

            chunks = (_CHUNK, _CHUNK // 2, 1)
            along.groups(registers, chunks, [ir.Constant(INT64, 0)], [size], of_registers)

        along.groups(number, (_SUM_QUERIES, 1), [weights, sums], [line, pitch], of_queries)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 9)), codegen


@intrinsic
def all_finite(typing, real, rows, stride, count, width):
    """Whether ``count`` rows of ``width`` neighbours hold neither NaN nor an infinity."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, rows, stride, count, width = args
        real, found = sig.args[0], []
        offset: ir.Value = ir.Constant(INT64, 0)
        for emit in (Emitter(builder, real), Emitter(builder, real, 0)):
            lanes = ir.Constant(INT64, emit.lanes or 1)
            size = (emit.lanes or 1) * emit.item
            turns = builder.udiv(width, lanes)
            width = builder.sub(width, builder.mul(turns, lanes))
            first = offset

            def of_row(
                row: list[ir.Value],
                emit: Emitter = emit,
                size: int = size,
                turns: ir.Value = turns,
                first: ir.Value = first,
            ) -> list[ir.Value]:
                def turn(carried: list[ir.Value]) -> list[ir.Value]:
                    place, most = carried
                    return [
                        builder.add(place, ir.Constant(INT64, size)),
                        emit.larger_size(emit.load_anywhere(place), most),
                    ]

                _, most = loop(builder, turns, [builder.add(row[0], first), row[1]], turn)
                return [builder.add(row[0], stride), most]

            _, most = loop(builder, count, [rows, emit.integer(0)], of_row)
            found.append(emit.anywhere(emit.is_infinite(most)))
            offset = builder.mul(turns, ir.Constant(INT64, size))
        return builder.not_(builder.or_(*found))

    return types.boolean(real, *([types.int64] * 4)), codegen


@intrinsic
def line_top(typing, real, scores, registers):
    """Return the largest number of a line of whole, aligned registers; NaN is passed over."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, scores, registers = args
        along = _Along(builder, sig.args[0])
        emit = along.emit

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            place, top = carried
            return [along.plus(place, along.size), emit.larger(emit.load(place), top)]

        _, top = loop(builder, registers, [scores, emit.number(float("-inf"))], turn)
        return emit.across(top, emit.larger)

    return real(real, types.int64, types.int64), codegen


@intrinsic
def line_weights(typing, real, scores, registers, base, factor, sums):
    """Score -> exp2((score - base) * factor) along a line, in place; return their sum.

    The register at ``sums`` has the sums before this line, and after it: a line may come in pieces.
    A score of -inf is a hidden source: its weight becomes -0.0, the mark `add_weighted_rows` reads.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, scores, registers, base, factor, sums = args
        along = _Along(builder, sig.args[0])
        emit = along.emit
        bases, factors = emit.spread(base), emit.spread(factor)

        def weigh(place: ir.Value) -> ir.Value:
            (weight,), _ = emit.weights([emit.load(place)], [bases], factors)
            emit.store(weight, place)
            return weight

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            place, *totals = carried
            places = [along.plus(place, i * along.size) for i in range(len(totals))]
            added = [builder.fadd(t, weigh(p)) for t, p in zip(totals, places, strict=True)]
            return [along.plus(place, len(totals) * along.size), *added]

        turns = builder.udiv(registers, ir.Constant(INT64, _SUMS))
        rest = builder.sub(registers, along.times(turns, _SUMS))
        zeros = [emit.number(0.0)] * (_SUMS - 1)
        place, total, *others = loop(builder, turns, [scores, emit.load(sums), *zeros], turn)
        _, total = loop(builder, rest, [place, total], turn)
        for other in others:
            total = builder.fadd(total, other)
        emit.store(total, sums)
        return emit.across(total, builder.fadd)

    return real(real, types.int64, types.int64, real, real, types.int64), codegen
