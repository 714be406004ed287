"""Products along the width of a row, for few targets: registers hold D or E, not targets."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, Emitter, loop

__all__ = ["add_weighted_rows", "dot_rows"]

_INT32 = ir.IntType(32)
_CHUNK = 8  # registers of a row that are summed at once


def _sum_each(builder: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """Return the register whose lane i is the sum of the numbers of vectors[i], as a tree."""
    lanes = len(vectors)
    width = 1
    while len(vectors) > 1:
        low, high = [], []
        for j in range(0, lanes, 2 * width):
            for source in (0, lanes):
                low += [source + j + k for k in range(width)]
                high += [source + j + width + k for k in range(width)]
        masks = [ir.Constant(ir.VectorType(_INT32, lanes), picked) for picked in (low, high)]
        vectors = [
            builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        width *= 2
    return vectors[0]


@intrinsic
def dot_rows(typing, real, rows, stride, count, query, step, out):
    """out[i] = rows[i] . query for the whole registers of rows in ``count``.

    ``rows`` and ``out`` are addresses, ``query`` that of an aligned row; ``step`` is the bytes of a
    row, a whole number of registers. Each dot sums its lanes in the order of the row, then as a
    tree: its bits depend on nothing beside it.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, rows, stride, count, query, step, out = args
        emit = Emitter(builder, sig.args[0], vector=True)
        lanes, size = emit.lanes, emit.lanes * emit.item
        registers = builder.udiv(step, ir.Constant(INT64, size))
        whole = builder.udiv(count, ir.Constant(INT64, lanes))

        def block(carried: list[ir.Value]) -> list[ir.Value]:
            first, place = carried
            starts = [
                builder.add(first, builder.mul(stride, ir.Constant(INT64, i))) for i in range(lanes)
            ]

            def turn(inner: list[ir.Value]) -> list[ir.Value]:
                offset, *sums = inner
                number = emit.load(builder.add(query, offset))
                loaded = [emit.load_anywhere(builder.add(start, offset)) for start in starts]
                added = [emit.fma(a, number, total) for a, total in zip(loaded, sums, strict=True)]
                return [builder.add(offset, ir.Constant(INT64, size)), *added]

            zeros = [emit.number(0.0)] * lanes
            _, *sums = loop(builder, registers, [ir.Constant(INT64, 0), *zeros], turn)
            emit.store(_sum_each(builder, sums), place)
            return [
                builder.add(first, builder.mul(stride, ir.Constant(INT64, lanes))),
                builder.add(place, ir.Constant(INT64, size)),
            ]

        loop(builder, whole, [rows, out], block)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 6)), codegen


@intrinsic
def add_weighted_rows(typing, real, rows, stride, count, weights, step, sums, carry):
    """Set sums to sums * carry + the sum over i of weights[i] * rows[i]; -0.0 hides a row.

    All are addresses but ``carry``, a number; ``sums`` is aligned and ``step`` bytes long, a whole
    number of registers, which every row can be read for.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, rows, stride, count, weights, step, sums, carry = args
        emit = Emitter(builder, sig.args[0], vector=True)
        size = emit.lanes * emit.item
        factor = emit.spread(carry)
        at: ir.Value = ir.Constant(INT64, 0)
        for chunk in (_CHUNK, 1):
            turns = builder.udiv(builder.sub(step, at), ir.Constant(INT64, chunk * size))

            def part(carried: list[ir.Value], chunk: int = chunk) -> list[ir.Value]:
                offsets = [
                    builder.add(carried[0], ir.Constant(INT64, i * size)) for i in range(chunk)
                ]
                places = [builder.add(sums, offset) for offset in offsets]
                totals = [builder.fmul(emit.load(place), factor) for place in places]

                def turn(inner: list[ir.Value]) -> list[ir.Value]:
                    row, weight, *totals = inner
                    number = emit.splat(weight)
                    seen = emit.is_not_hidden(number)
                    following = []
                    for offset, total in zip(offsets, totals, strict=True):
                        loaded = emit.load_anywhere(builder.add(row, offset))
                        added = emit.fma(number, loaded, total)
                        following.append(builder.select(seen, added, total))
                    step_on = builder.add(weight, ir.Constant(INT64, emit.item))
                    return [builder.add(row, stride), step_on, *following]

                _, _, *totals = loop(builder, count, [rows, weights, *totals], turn)
                for total, place in zip(totals, places, strict=True):
                    emit.store(total, place)
                return [builder.add(carried[0], ir.Constant(INT64, chunk * size))]

            (at,) = loop(builder, turns, [at], part)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 6), real), codegen
