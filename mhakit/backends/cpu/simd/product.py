"""The tile product: rows from memory as they lie, times a tile whose lanes are targets."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mhakit.backends.cpu.simd.emitter import INT64, LEAST_BYTES, LINE, VECTOR_BYTES, Emitter
from mhakit.backends.cpu.simd.looping import loop

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


class _Ahead:
    """Rows that a product does not read but asks the memory for, while it does as many of its own.

    A CPU sees four rows read side by side, a line of each, and does not guess which follow. Each
    column of lanes asks for its share of every row's lines, so that few are under way at a time.
    """

    def __init__(self, builder: ir.IRBuilder, rows: ir.Value, position: int) -> None:
        self.builder = builder
        self.first, self.row, size = (
            builder.extract_value(rows, [position, field]) for field in range(3)
        )
        lines = builder.add(size, ir.Constant(INT64, LINE - 1))
        self.lines = builder.udiv(lines, ir.Constant(INT64, LINE))

    def begin(self, start: ir.Value, stop: ir.Value, width: ir.Value) -> ir.Value:
        """Take the share of lanes [start, stop) of ``width``; return its place in the first row."""
        builder = self.builder
        before, past = (
            builder.udiv(builder.mul(self.lines, lane), width) for lane in (start, stop)
        )
        self.share = builder.sub(past, before)
        return builder.add(self.first, builder.mul(before, ir.Constant(INT64, LINE)))

    def ask(self, emit: Emitter, place: ir.Value, rows: int) -> None:
        """Emit the asking for this share of so many rows."""
        builder = self.builder
        places = [
            builder.add(place, builder.mul(self.row, ir.Constant(INT64, m))) for m in range(rows)
        ]

        def turn(at: list[ir.Value]) -> list[ir.Value]:
            for place in at:
                emit.fetch(place)
            return [builder.add(place, ir.Constant(INT64, LINE)) for place in at]

        loop(builder, self.share, places, turn)


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
        self.ahead = []
        if mode == "multiply":
            (rows,) = apart
            self.ahead = [_Ahead(builder, rows, i) for i in range(rows.type.count)]
            apart = []
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
        stop = self._plus(start, vectors * emit.size)
        asked = [rows.begin(start, stop, self.width) for rows in self.ahead]
        at = [self.a, builder.add(self.c, start), builder.add(self.carry, start), *asked]
        steps = (self.a_row, self.c_row, self.carry_row, *[rows.row for rows in self.ahead])
        whole = builder.udiv(self.rows, ir.Constant(INT64, many))
        rest = builder.sub(self.rows, self._times(whole, many))
        for count, rows in ((whole, many), (rest, 1)):

            def block(carried: list[ir.Value], rows: int = rows) -> list[ir.Value]:
                a, c, carry, *asked = carried
                for ahead, place in zip(self.ahead, asked, strict=True):
                    ahead.ask(emit, place, rows)
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

        begin = [ir.Constant(INT64, 0), b, *sums]
        _, _, *sums = loop(builder, self.depth, begin, turn, aligned=True)
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
def multiply(typing, real, a, a_row, a_step, b, c, step, width, rows, depth, carry, ahead):
    """Write a product and ask the memory for what comes next: as many rows as A has of each kind.

    The others are as `accumulate` takes them, ``carry`` is any number. ``ahead`` is a tuple of
    (address of the first row, bytes between rows, bytes of a row), which nobody needs to own.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _Product("multiply", builder, sig.args[0], args[1:]).write()
        return context.get_dummy_value()

    kinds = types.UniTuple(types.UniTuple(types.int64, 3), len(ahead))
    return types.void(real, *([types.int64] * 10), kinds), codegen


@intrinsic
def extend(typing, real, a, a_row, a_step, b, c, step, width, rows, depth, begin, c_row, begin_row):
    """Write a product that lies anywhere: C in rows of ``c_row`` bytes, from what ``begin`` holds.

    The others are as in `accumulate`; ``begin`` is rows of ``begin_row`` bytes, 0 for one row.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _Product("extend", builder, sig.args[0], args[1:]).write()
        return context.get_dummy_value()

    return types.void(real, *([types.int64] * 12)), codegen


accumulate = _product("accumulate")
accumulate_visible = _product("accumulate_visible")
