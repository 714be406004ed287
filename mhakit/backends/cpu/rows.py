"""Rows of the caller's arrays <-> columns or lines of scratch, whatever the dtype and the strides.

Rows whose numbers are neighbours go a register at a time; others one by one.
"""

from __future__ import annotations

import numpy as np

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.memory import address, read, read_bool, write
from mhakit.backends.cpu.simd import (
    VECTOR_BYTES,
    row_from_line,
    rows_to_lines,
    to_columns,
    to_rows,
)
from mhakit.backends.cpu.storage import BOOL, FLOAT16, FLOAT32, FLOAT64

__all__ = [
    "beside",
    "load_row",
    "load_rows",
    "store_row",
    "store_rows",
    "widen_rows",
    "widened",
]


@inlined
def beside(kind, item, stride):
    """Whether numbers ``stride`` bytes apart are neighbours that registers of ``item`` load."""
    if kind == BOOL:
        return stride == 1
    if item == 8:
        return kind == FLOAT64 and stride == 8
    if kind == FLOAT32:
        return stride == 4
    return kind >= FLOAT16 and stride == 2


@inlined
def load_rows(real, kind, rows, stride, count, tile, factor):
    """Write number i of lane's row, at rows[lane] + i * stride, times a factor to tile[i, lane].

    True is 1.
    """
    lanes, step = tile.shape[1], tile.shape[1] * tile.itemsize
    if step % VECTOR_BYTES == 0 and beside(kind, tile.itemsize, stride):
        to_columns(real, kind, stride, address(rows), lanes, count, address(tile), step, factor)
    else:
        cast = type(real)
        for lane in range(lanes):
            for i in range(count):
                place = rows[lane] + i * stride
                number = cast(read_bool(place)) if kind == BOOL else read(real, kind, place)
                tile[i, lane] = number * factor


@inlined
def store_rows(real, kind, rows, stride, count, tile, factors):
    """Write tile[i, lane] * factors[lane], rounded once, to lane's row at rows[lane] + i * stride.

    Lanes that share a row must hold the same numbers. No zero is -0.0.
    """
    lanes, step = tile.shape[1], tile.shape[1] * tile.itemsize
    if beside(kind, tile.itemsize, stride):
        to_rows(
            real, kind, stride, address(rows), lanes, count, address(tile), step, address(factors)
        )
    else:
        zero = type(real)(0)
        for lane in range(lanes):
            for i in range(count):
                write(kind, rows[lane] + i * stride, tile[i, lane] * factors[lane] + zero)


@inlined
def load_row(real, kind, first, stride, count, line):
    """Write number i, at first + i * stride, to line[i]."""
    if beside(kind, line.itemsize, stride):
        rows_to_lines(
            real, kind, stride, first, np.int64(0), np.int64(1), count, address(line), np.int64(0)
        )
    else:
        for i in range(count):
            line[i] = read(real, kind, first + i * stride)


@inlined
def store_row(real, kind, first, stride, count, line, factor):
    """Write line[i] * factor, rounded once, to first + i * stride; no zero is -0.0."""
    if beside(kind, line.itemsize, stride):
        row_from_line(real, kind, stride, first, count, address(line), factor)
    else:
        zero = type(real)(0)
        for i in range(count):
            write(kind, first + i * stride, line[i] * factor + zero)


@inlined
def widen_rows(real, kind, first, row, step, rows, width, out):
    """Write the (rows, width) numbers at ``first`` to ``out``, in the type of ``real``."""
    if beside(kind, out.itemsize, step):
        rows_to_lines(real, kind, step, first, row, rows, width, address(out), out.strides[0])
    else:
        for i in range(rows):
            load_row(real, kind, first + i * row, step, width, out[i])


@inlined
def widened(real, kind, first, row, step, rows, width, staged):
    """Return where numbers in the type of ``real`` lie and their strides, staged where short."""
    if kind < FLOAT16:
        return first, row, step
    widen_rows(real, kind, first, row, step, rows, width, staged)
    return address(staged), staged.strides[0], np.int64(staged.itemsize)
