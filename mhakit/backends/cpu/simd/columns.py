"""Softmax lane by lane: a column of a tile is one target's scores, and nothing crosses lanes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import Emitter, loop

__all__ = ["column_tops", "column_weights", "exp2", "tanh"]


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
def column_weights(
    typing: Any, real: Any, scores: Any, step: Any, rows: Any, bases: Any, sums: Any
) -> Any:
    """Score -> exp2(score - bases[lane]) in place; sums[lane] += them; return whether any hides.

    A score of -inf is a hidden source: its weight becomes -0.0, the mark `accumulate_visible`
    reads.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, scores, step, rows, bases, sums = args
        emit = Emitter(builder, sig.args[0])
        base = emit.load(bases)
        flags = ir.VectorType(ir.IntType(1), emit.lanes)

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            row, total, hidden = carried
            weight, hides = emit.weight(emit.load(row), base)
            emit.store(weight, row)
            return [builder.add(row, step), builder.fadd(total, weight), builder.or_(hidden, hides)]

        none = ir.Constant(flags, [0] * emit.lanes)
        _, total, hidden = loop(builder, rows, [scores, emit.number(0.0), none], turn)
        emit.store(builder.fadd(emit.load(sums), total), sums)
        packed = builder.bitcast(hidden, ir.IntType(emit.lanes))
        return builder.icmp_unsigned("!=", packed, ir.Constant(packed.type, 0))

    return types.boolean(real, *([types.int64] * 5)), codegen


def _elementwise(name: str) -> Any:
    @intrinsic
    def function(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            return getattr(Emitter(builder, sig.args[0], 0), name)(args[0])

        if x in (types.float32, types.float64):
            return x(x), codegen
        return None

    return function


exp2 = _elementwise("exp2")
tanh = _elementwise("tanh")
