"""Rows of the caller's arrays <-> columns of a tile, whatever the dtype and the strides.

Rows whose numbers are neighbours are turned a register at a time; others one by one.
"""

from __future__ import annotations

import numpy as np

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.memory import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    address,
    read,
    read_bool,
    write,
)
from mhakit.backends.cpu.simd import (
    VECTOR_BYTES,
    bfloat16_to_columns,
    bfloat16_to_rows,
    bool_to_columns,
    float16_to_columns,
    float16_to_rows,
    native_to_columns,
    native_to_rows,
    widen_bfloat16,
    widen_float16,
)

__all__ = ["load_bools", "load_rows", "store_row", "store_rows", "widen_rows"]


@inlined
def load_rows(real, kind, rows, stride, count, tile):
    """Write number i of lane's row, at rows[lane] + i * stride, to tile[i, lane]."""
    lanes, step = tile.shape[1], tile.shape[1] * tile.itemsize
    native = FLOAT32 if tile.itemsize == 4 else FLOAT64
    if step % VECTOR_BYTES != 0:  # too few lanes to fill registers
        kind_of_registers = np.int64(-1)
    else:
        kind_of_registers = kind
    if kind_of_registers == native and stride == tile.itemsize:
        native_to_columns(real, address(rows), lanes, count, address(tile), step)
    elif kind_of_registers == FLOAT16 and stride == 2 and tile.itemsize == 4:
        float16_to_columns(real, address(rows), lanes, count, address(tile), step)
    elif kind_of_registers == BFLOAT16 and stride == 2 and tile.itemsize == 4:
        bfloat16_to_columns(real, address(rows), lanes, count, address(tile), step)
    else:
        for lane in range(lanes):
            for i in range(count):
                tile[i, lane] = read(real, kind, rows[lane] + i * stride)


@inlined
def load_bools(real, rows, stride, count, tile):
    """Write 1 for True and 0 for False, at rows[lane] + i * stride, to tile[i, lane]."""
    lanes, step = tile.shape[1], tile.shape[1] * tile.itemsize
    if stride == 1 and step % VECTOR_BYTES == 0:
        bool_to_columns(real, address(rows), lanes, count, address(tile), step)
    else:
        cast = type(real)
        for lane in range(lanes):
            for i in range(count):
                tile[i, lane] = cast(read_bool(rows[lane] + i * stride))


@inlined
def store_rows(real, kind, rows, stride, count, tile):
    """Write tile[i, lane], rounded once, to lane's row at rows[lane] + i * stride.

    Lanes that share a row must hold the same numbers.
    """
    lanes, step = tile.shape[1], tile.shape[1] * tile.itemsize
    native = FLOAT32 if tile.itemsize == 4 else FLOAT64
    if kind == native and stride == tile.itemsize:
        native_to_rows(real, address(rows), lanes, count, address(tile), step)
    elif kind == FLOAT16 and stride == 2:
        float16_to_rows(real, address(rows), lanes, count, address(tile), step)
    elif kind == BFLOAT16 and stride == 2:
        bfloat16_to_rows(real, address(rows), lanes, count, address(tile), step)
    else:
        for lane in range(lanes):
            for i in range(count):
                write(kind, rows[lane] + i * stride, tile[i, lane])


@inlined
def store_row(real, kind, first, stride, count, line, factor):
    """Write line[i] * factor, rounded once, to first + i * stride."""
    if kind == FLOAT32:  # each kind has a loop of its own, so that no number asks for its kind
        for i in range(count):
            write(FLOAT32, first + i * stride, line[i] * factor)
    else:
        for i in range(count):
            write(kind, first + i * stride, line[i] * factor)


@inlined
def widen_rows(real, kind, first, row, step, rows, width, out):
    """Write the (rows, width) 16-bit numbers at ``first`` to ``out``, in the type of ``real``."""
    for i in range(rows):
        base = first + i * row
        if kind == FLOAT16 and step == 2:
            widen_float16(real, base, width, address(out) + i * out.strides[0])
        elif kind == BFLOAT16 and step == 2:
            widen_bfloat16(real, base, width, address(out) + i * out.strides[0])
        else:
            for j in range(width):
                out[i, j] = read(real, kind, base + j * step)
