"""Softmax lane by lane: a column of a tile is one target's scores, and nothing crosses lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, Emitter
from mhakit.backends.cpu.simd.looping import loop
from mhakit.backends.cpu.simd.product import COLUMN

__all__ = [
    "column_bases",
    "column_tops",
    "column_weights",
    "column_weights_scaled",
    "exp2",
    "tanh",
]


@intrinsic
def column_tops(typing: Any, real: Any, scores: Any, step: Any, rows: Any, tops: Any) -> Any:
    """tops[lane] = the larger of itself and its column's scores; NaN is passed over."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, scores, step, rows, tops = args
        emit = Emitter(builder, sig.args[0])

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            row, top = carried
            return [builder.add(row, step), emit.larger(emit.load(row), top)]

        _, top = loop(builder, rows, [scores, emit.load(tops)], turn)
        emit.store(top, tops)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 4)), codegen


# Registers of a row that are done at once, then one by one: their steps do not wait for each other.
_TOGETHER = (COLUMN, 1)


def _by_columns(
    emit: Emitter,
    width: ir.Value,
    carried: list[ir.Value],
    body: Callable[[ir.Value, int, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Emit ``body(offset, registers at once, carried)`` for all of a row of ``width`` bytes."""
    builder = emit.builder
    at: list[ir.Value] = [ir.Constant(INT64, 0), *carried]
    for count in _TOGETHER:
        size = ir.Constant(INT64, count * emit.size)

        def column(at: list[ir.Value], count: int = count, size: ir.Value = size) -> list[ir.Value]:
            return [builder.add(at[0], size), *body(at[0], count, at[1:])]

        at = loop(builder, builder.udiv(builder.sub(width, at[0]), size), at, column)
    return at[1:]


def _registers(emit: Emitter, line: ir.Value, count: int) -> list[ir.Value]:
    """Return the addresses of ``count`` registers that lie one after the other."""
    return [emit.builder.add(line, ir.Constant(INT64, i * emit.size)) for i in range(count)]


@intrinsic
def column_bases(typing, real, scores, step, width, rows, tops, bases, carries, sums):
    """Raise each lane's top to its column's, and turn its sum over to the new one.

    bases[lane] = the top, or 0 while nothing is seen; sums[lane] *= carries[lane] = exp2(old top -
    base). Return whether the weights of these scores are plain: none hidden, none below the normal
    numbers. ``width`` is the bytes of a row, whole registers.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, scores, step, width, rows, *lines = args
        emit = Emitter(builder, sig.args[0])

        def column(offset: ir.Value, count: int, carried: list[ir.Value]) -> list[ir.Value]:
            (plain,) = carried
            tops, bases, carries, totals = (
                _registers(emit, builder.add(line, offset), count) for line in lines
            )
            olds = [emit.load(top) for top in tops]

            def turn(carried: list[ir.Value]) -> list[ir.Value]:
                row, *kept = carried
                found = [emit.load(place) for place in _registers(emit, row, count)]
                highs = [emit.larger(x, high) for x, high in zip(found, kept[:count], strict=True)]
                lows = [emit.smaller(x, low) for x, low in zip(found, kept[count:], strict=True)]
                return [builder.add(row, step), *highs, *lows]

            begin = [builder.add(scores, offset), *olds, *[emit.number(float("inf"))] * count]
            _, *kept = loop(builder, rows, begin, turn)
            highs, lows = kept[:count], kept[count:]
            none = emit.number(float("-inf"))
            news = [
                builder.select(builder.fcmp_ordered("==", high, none), emit.number(0.0), high)
                for high in highs
            ]
            factors = emit.exp2(
                [builder.fsub(old, new) for old, new in zip(olds, news, strict=True)]
            )
            for i, factor in enumerate(factors):
                emit.store(highs[i], tops[i])
                emit.store(news[i], bases[i])
                emit.store(factor, carries[i])
                emit.store(builder.fmul(emit.load(totals[i]), factor), totals[i])
                low = builder.fsub(lows[i], news[i])
                odd = builder.fcmp_unordered("<", low, emit.number(emit.least))
                plain = builder.and_(plain, builder.not_(emit.anywhere(odd)))
            return [plain]

        return _by_columns(emit, width, [ir.Constant(ir.IntType(1), 1)], column)[0]

    return types.boolean(real, *([types.int64] * 8)), codegen


def _column_weights(*, scaled: bool) -> Any:
    """Make ``weights(real, scores, step, width, rows, bases, sums, plain, factor)``."""

    def emit_columns(
        emit: Emitter, operands: Any, start: ir.Value, count: int, *, plain: bool
    ) -> ir.Value:
        """Emit all rows of ``count`` registers; return whether any hides."""
        builder = emit.builder
        scores, step, _, rows, bases, sums, _, factor = operands
        factor = emit.spread(factor) if scaled else None

        tops = [emit.load(place) for place in _registers(emit, builder.add(bases, start), count)]

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            row, hidden, *totals = carried
            places = _registers(emit, row, count)
            weights, hides = emit.weights(
                [emit.load(place) for place in places], tops, factor, plain=plain
            )
            for weight, place in zip(weights, places, strict=True):
                emit.store(weight, place)
            for hide in hides:
                hidden = builder.or_(hidden, hide)
            totals = [builder.fadd(t, w) for t, w in zip(totals, weights, strict=True)]
            return [builder.add(row, step), hidden, *totals]

        none = ir.Constant(ir.VectorType(ir.IntType(1), emit.lanes), [0] * emit.lanes)
        begin = [builder.add(scores, start), none, *[emit.number(0.0)] * count]
        _, hidden, *totals = loop(builder, rows, begin, turn)
        places = _registers(emit, builder.add(sums, start), count)
        for place, total in zip(places, totals, strict=True):
            emit.store(builder.fadd(emit.load(place), total), place)
        return emit.anywhere(hidden)

    @intrinsic
    def weights(typing, real, scores, step, width, rows, bases, sums, plain, factor):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            emit = Emitter(builder, sig.args[0])

            def column(start: ir.Value, count: int, carried: list[ir.Value]) -> list[ir.Value]:
                with builder.if_else(args[7]) as (quick, careful):
                    with quick:
                        emit_columns(emit, args[1:], start, count, plain=True)
                        before = builder.block
                    with careful:
                        hides = emit_columns(emit, args[1:], start, count, plain=False)
                        after = builder.block
                found = builder.phi(hides.type)
                found.add_incoming(ir.Constant(hides.type, 0), before)
                found.add_incoming(hides, after)
                return [builder.or_(carried[0], found)]

            return _by_columns(emit, args[3], [ir.Constant(ir.IntType(1), 0)], column)[0]

        return types.boolean(real, *([types.int64] * 6), types.boolean, real), codegen

    return weights


column_weights = _column_weights(scaled=False)
column_weights_scaled = _column_weights(scaled=True)
"""Score -> exp2((score - bases[lane]) * factor) in place; sums[lane] += them; whether any hides.

``column_weights`` has no factor and takes any number for it. A score of -inf is a hidden source:
its weight becomes -0.0, the mark `accumulate_visible` reads. ``plain`` promises that there is none
and that no weight is below the normal numbers. ``width`` is the bytes of a row, whole registers.
"""


def _elementwise(make: Callable[[Emitter, ir.Value], ir.Value]) -> Any:
    @intrinsic
    def function(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            return make(Emitter(builder, sig.args[0], 0), args[0])

        if x in (types.float32, types.float64):
            return x(x), codegen
        return None

    return function


exp2 = _elementwise(lambda emit, x: emit.exp2([x])[0])
tanh = _elementwise(Emitter.tanh)
