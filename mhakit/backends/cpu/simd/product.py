"""The tile product: rows from memory as they lie, times a tile whose lanes are targets."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, LEAST_BYTES, VECTOR_BYTES, Emitter, loop

__all__ = ["COLUMN", "accumulate", "accumulate_visible", "extend", "multiply"]

# AVX2 has 16 registers, AVX-512 and NEON have 32.
_FEW = VECTOR_BYTES == 32

COLUMN = 3 if _FEW else 4
"""Registers of lanes that a product takes at once."""


def _columns(mode: str) -> list[tuple[int, int, int]]:
    """Return registers of lanes, the bytes of each, and the rows a product takes with them.

    Eight or more independent sums keep a CPU busy; sums, lanes, what hides some of them and one
    number spread over a register fit the registers there are. What is left of a tile's width goes
    by one register, and then by a part of one.
    """
    wide = 2 if _FEW and mode == "accumulate_visible" else COLUMN
    columns = [(wide, VECTOR_BYTES, 4), (1, VECTOR_BYTES, 8)]
    if LEAST_BYTES < VECTOR_BYTES:
        columns.append((1, LEAST_BYTES, 8))
    return columns


class _Product:
    """Emits C[m, lane] = sum over k of A[m, k] * B[k, lane] for every row m and lane.

    ``mode`` says what a sum starts from: 0 (``multiply``), C * carry[lane] (``accumulate``) or
    what lies in rows of their own (``extend``). ``accumulate_visible`` leaves out each k at the
    lanes where B is -0.0, so that what A holds there is never used. A lane sums in the order of k
    by fma, whatever its neighbours.
    """

    def __init__(self, mode: str, builder: ir.IRBuilder, real: Any, operands: Any) -> None:
        self.mode, self.builder, self.real = mode, builder, real
        (self.a, self.a_row, self.a_step, self.b, self.c, self.step, self.width, self.rows,
         self.depth, self.carry, *apart) = operands  # fmt: skip
        self.c_row, self.carry_row = apart or (self.step, ir.Constant(INT64, 0))

    def _times(self, value: ir.Value, count: int) -> ir.Value:
        return self.builder.mul(value, ir.Constant(INT64, count))

    def _plus(self, base: ir.Value, count: int) -> ir.Value:
        return self.builder.add(base, ir.Constant(INT64, count))

    def write(self) -> None:
        """Emit the whole product, the widest columns of registers first."""
        builder = self.builder
        start: ir.Value = ir.Constant(INT64, 0)
        for vectors, size, many in _columns(self.mode):
            count = builder.udiv(builder.sub(self.width, start), ir.Constant(INT64, vectors * size))
            emit = Emitter(builder, self.real, size)

            def column(
                carried: list[ir.Value],
                emit: Emitter = emit,
                vectors: int = vectors,
                many: int = many,
            ) -> list[ir.Value]:
                self._column(emit, carried[0], vectors, many)
                return [self._plus(carried[0], vectors * emit.size)]

            (start,) = loop(builder, count, [start], column)

    def _column(self, emit: Emitter, start: ir.Value, vectors: int, many: int) -> None:
        """Emit all rows, ``many`` at once, of the lanes ``start`` bytes into a tile's rows."""
        builder = self.builder
        b = builder.add(self.b, start)
        at = [self.a, builder.add(self.c, start), builder.add(self.carry, start)]
        steps = (self.a_row, self.c_row, self.carry_row)
        whole = builder.udiv(self.rows, ir.Constant(INT64, many))
        rest = builder.sub(self.rows, self._times(whole, many))
        for count, rows in ((whole, many), (rest, 1)):

            def block(carried: list[ir.Value], rows: int = rows) -> list[ir.Value]:
                a, c, carry = carried
                self._block(emit, rows, vectors, a, b, c, carry)
                return [
                    builder.add(place, self._times(step, rows))
                    for place, step in zip(carried, steps, strict=True)
                ]

            at = loop(builder, count, at, block)

    def _block(
        self,
        emit: Emitter,
        rows: int,
        vectors: int,
        a: ir.Value,
        b: ir.Value,
        c: ir.Value,
        carry: ir.Value,
    ) -> None:
        """Emit ``rows`` rows and ``vectors`` registers of lanes, whose sums stay in registers."""
        builder = self.builder
        a_rows = [builder.add(a, self._times(self.a_row, m)) for m in range(rows)]

        def tile(first: ir.Value, step: ir.Value) -> list[ir.Value]:
            return [
                self._plus(builder.add(first, self._times(step, m)), v * emit.size)
                for m in range(rows)
                for v in range(vectors)
            ]

        places = tile(c, self.c_row)
        if self.mode == "multiply":
            sums = [emit.number(0.0)] * len(places)
        elif self.mode == "extend":
            sums = [emit.load_anywhere(place) for place in tile(carry, self.carry_row)]
        else:
            factors = [emit.load(self._plus(carry, v * emit.size)) for v in range(vectors)]
            sums = [
                builder.fmul(emit.load(place), factors[i % vectors])
                for i, place in enumerate(places)
            ]

        hides = self.mode == "accumulate_visible"

        def turn(carried: list[ir.Value]) -> list[ir.Value]:
            offset, b_row, *sums = carried
            lanes = [emit.load(self._plus(b_row, v * emit.size)) for v in range(vectors)]
            seen = [emit.is_not_hidden(lane) for lane in lanes] if hides else []
            following = []
            for m in range(rows):
                number = emit.splat(builder.add(a_rows[m], offset))
                for v in range(vectors):
                    total = sums[m * vectors + v]
                    if hides:
                        added = emit.fma_seen(seen[v], number, lanes[v], total)
                    else:
                        added = emit.fma(number, lanes[v], total)
                    following.append(added)
            return [builder.add(offset, self.a_step), builder.add(b_row, self.step), *following]

        _, _, *sums = loop(builder, self.depth, [ir.Constant(INT64, 0), b, *sums], turn)
        store = emit.store_anywhere if self.mode == "extend" else emit.store
        for total, place in zip(sums, places, strict=True):
            store(total, place)


def _product(mode: str) -> Any:
    """Make ``product(real, a, a_row, a_step, b, c, step, width, rows, depth, carry)``.

    a, b, c and carry are addresses; a_row and a_step the bytes between rows and between k of A,
    step the bytes of a row of B and C, of which only the first ``width`` are lanes in use, a
    multiple of `LEAST_BYTES`.
    """

    @intrinsic
    def product(typing, real, a, a_row, a_step, b, c, step, width, rows, depth, carry):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            _Product(mode, builder, sig.args[0], args[1:]).write()
            return context.get_dummy_value()

        return types.void(real, *([types.int64] * 10)), codegen

    return product


@intrinsic
def extend(typing, real, a, a_row, a_step, b, c, step, width, rows, depth, begin, c_row, begin_row):
    """Write a product that lies anywhere: C in rows of ``c_row`` bytes, from what ``begin`` holds.

    The others are as in `multiply`; ``begin`` is rows, too, of ``begin_row`` bytes, 0 for one row.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _Product("extend", builder, sig.args[0], args[1:]).write()
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 12)), codegen


multiply = _product("multiply")
accumulate = _product("accumulate")
accumulate_visible = _product("accumulate_visible")
