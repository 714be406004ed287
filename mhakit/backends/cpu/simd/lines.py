"""Rows of memory <-> lines of scratch, a register at a time, whatever the dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, Emitter
from mhakit.backends.cpu.simd.looping import loop
from mhakit.backends.cpu.simd.product import COLUMN
from mhakit.backends.cpu.simd.stored import Stored, by_kind

__all__ = ["row_from_line", "rows_to_lines", "rows_to_panels"]

_AHEAD = 8
"""Rows between the one that is copied and the one that is asked for."""


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

        def all_rows(stored: Stored) -> list[ir.Value]:
            def move(emit: Emitter, source: ir.Value, pointer: ir.Value) -> None:
                value = Stored(stored.kind, emit).load(source)
                builder.store(value, pointer, align=emit.item)

            def one(carried: list[ir.Value]) -> list[ir.Value]:
                source, target = carried
                _along_line(builder, real, source, size, count, target, move)
                return [builder.add(source, step), builder.add(target, line_step)]

            loop(builder, rows, [row, line], one)
            return []

        by_kind(kind, Emitter(builder, real), all_rows, bools=False)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 8)), codegen


@intrinsic
def rows_to_panels(typing, real, kind, size, row, step, rows, panels, tile, panel):
    """Write rows of neighbours in memory to panels of `COLUMN` registers each, whole ones.

    A panel's lines follow one another; ``panel`` is the bytes between panels, ``step`` those
    between rows. A row far on is asked for while one is copied: rows are often pages apart, where
    no CPU looks ahead.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, kind, size, row, step, rows, panels, tile, panel = args
        emit = Emitter(builder, sig.args[0])
        width = COLUMN * emit.size
        ahead = builder.mul(step, ir.Constant(INT64, _AHEAD))

        def all_rows(stored: Stored) -> list[ir.Value]:
            register = builder.mul(size, ir.Constant(INT64, emit.lanes))

            def one_panel(at: list[ir.Value]) -> list[ir.Value]:
                source, target = at
                for c in range(COLUMN):
                    place = builder.add(source, builder.mul(register, ir.Constant(INT64, c)))
                    emit.fetch(builder.add(place, ahead))
                    emit.store(
                        stored.load(place), builder.add(target, ir.Constant(INT64, c * emit.size))
                    )
                end = builder.add(source, builder.mul(register, ir.Constant(INT64, COLUMN)))
                return [end, builder.add(target, panel)]

            def one_row(at: list[ir.Value]) -> list[ir.Value]:
                loop(builder, panels, at, one_panel)
                return [builder.add(at[0], step), builder.add(at[1], ir.Constant(INT64, width))]

            loop(builder, rows, [row, tile], one_row)
            return []

        by_kind(kind, emit, all_rows, bools=False)
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

            def store(stored: Stored) -> list[ir.Value]:
                stored.store(value, source)
                return []

            by_kind(kind, emit, store, bools=False)

        _along_line(builder, sig.args[0], row, size, count, line, move)
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 5), real), codegen
