"""Softmax lane by lane: a column of a tile is one target's scores, and nothing crosses lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, VECTOR_BYTES, Emitter, loop

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

        def register(carried: list[ir.Value]) -> list[ir.Value]:
            offset, plain = carried
            top, base, carry, total = (builder.add(line, offset) for line in lines)
            old = emit.load(top)

            def turn(carried: list[ir.Value]) -> list[ir.Value]:
                row, high, low = carried
                score = emit.load(row)
                return [builder.add(row, step), emit.larger(score, high), emit.smaller(score, low)]

            begin = [builder.add(scores, offset), old, emit.number(float("inf"))]
            _, high, low = loop(builder, rows, begin, turn)
            nothing = builder.fcmp_ordered("==", high, emit.number(float("-inf")))
            new = builder.select(nothing, emit.number(0.0), high)
            (factor,) = emit.exp2([builder.fsub(old, new)])
            emit.store(high, top)
            emit.store(new, base)
            emit.store(factor, carry)
            emit.store(builder.fmul(emit.load(total), factor), total)
            low = builder.fsub(low, new)
            odd = builder.fcmp_unordered("<", low, emit.number(emit.least))
            plain = builder.and_(plain, builder.not_(emit.anywhere(odd)))
            return [builder.add(offset, ir.Constant(INT64, emit.size)), plain]

        registers = builder.udiv(width, ir.Constant(INT64, emit.size))
        begin = [ir.Constant(INT64, 0), ir.Constant(ir.IntType(1), 1)]
        return loop(builder, registers, begin, register)[1]

    return types.boolean(real, *([types.int64] * 8)), codegen


# Registers whose weights are made at once, for a row's loads and sums to fit beside them.
_TOGETHER = (2 if VECTOR_BYTES == 32 else 4, 1)


def _column_weights(*, scaled: bool) -> Any:
    """Make ``weights(real, scores, step, width, rows, bases, sums, plain, factor)``."""

    def emit_columns(
        emit: Emitter, operands: Any, start: ir.Value, count: int, *, plain: bool
    ) -> ir.Value:
        """Emit all rows of ``count`` registers; return whether any hides."""
        builder = emit.builder
        scores, step, _, rows, bases, sums, _, factor = operands
        factor = emit.spread(factor) if scaled else None

        def registers(line: ir.Value) -> list[ir.Value]:
            return [builder.add(line, ir.Constant(INT64, i * emit.size)) for i in range(count)]

        tops = [emit.load(place) for place in registers(builder.add(bases, start))]

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            row, hidden, *totals = carried
            places = registers(row)
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
        for place, total in zip(registers(builder.add(sums, start)), totals, strict=True):
            emit.store(builder.fadd(emit.load(place), total), place)
        return emit.anywhere(hidden)

    @intrinsic
    def weights(typing, real, scores, step, width, rows, bases, sums, plain, factor):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            emit = Emitter(builder, sig.args[0])
            start, hidden = ir.Constant(INT64, 0), ir.Constant(ir.IntType(1), 0)
            for count in _TOGETHER:
                size = ir.Constant(INT64, count * emit.size)

                def column(
                    carried: list[ir.Value], count: int = count, size: ir.Value = size
                ) -> list[ir.Value]:
                    start, hidden = carried
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
                    return [builder.add(start, size), builder.or_(hidden, found)]

                left = builder.udiv(builder.sub(args[3], start), size)
                start, hidden = loop(builder, left, [start, hidden], column)
            return hidden

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
