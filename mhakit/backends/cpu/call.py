"""A `Problem` as one record of numbers: the single argument that attention's kernels read.

Arrays go as an address and strides in bytes, so that a kernel is compiled once a computation
dtype, whatever the layout, the strides and the keywords.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.record import HEAD, UNSTARTED, address_of, records, where
from mhakit.backends.cpu.simd import COLUMN, VECTOR_BYTES
from mhakit.backends.cpu.storage import kind_of
from mhakit.problem import Problem

__all__ = [
    "CALL",
    "SOURCES",
    "WRITING",
    "blocks_of",
    "estimate",
    "lanes_for",
    "pack",
    "spare_lanes",
]

Array = NDArray[Any]
SOURCES = 64
"""Sources in one block, counted from source 0: another number changes the bits of the results."""

_WIDEST = 4 * COLUMN * VECTOR_BYTES if VECTOR_BYTES == 32 else 256
"""Bytes of a tile's widest row: a tile reads all keys and values, and itself lies in caches."""

WRITING = 1.0
"""Nanoseconds that a score or a weight takes to be written, one that nobody sees too."""

_INTEGERS = (
    *HEAD,
    "B", "H", "G", "T", "S", "D", "E", "lanes", "kind", "item", "reshaped", "left", "right",
    "offsets", "lengths", "sinks", "lse",
    "query", "query_b", "query_h", "query_t", "query_d",
    "key", "key_b", "key_h", "key_s", "key_d",
    "value", "value_b", "value_h", "value_s", "value_e",
    "mask", "mask_b", "mask_h", "mask_t", "mask_s",
    "bias", "bias_b", "bias_h", "bias_t", "bias_s", "bias_kind",
    "out", "out_b", "out_h", "out_t", "out_e",
    "heads", "queries", "num_heads", "num_queries", "arguments", "partials", "pairs",
    "attended", "attended_b", "attended_h", "attended_t", "attended_e",
)  # fmt: skip

CALL = records(_INTEGERS, ("scale", "softcap"))
"""Sizes and indices as in `mhakit.problem`; a bare array name is its address, 0 where absent."""

_BYTES = struct.Struct(f"={len(_INTEGERS)}q2d8x")


def lanes_for(rows: int, real: np.dtype[Any]) -> int:
    """Return how many targets a tile carries: whole registers, no more than the targets fill.

    Tiles are about equally wide, and of the columns that products take at once.
    """
    lanes = VECTOR_BYTES // real.itemsize
    registers = max(-(-rows // lanes), 1)
    tiles = -(-registers * VECTOR_BYTES // _WIDEST)
    columns = -(-registers // (tiles * COLUMN))
    return lanes * min(registers, columns * COLUMN)


def spare_lanes(rows: int, lanes: int, register: int) -> int:
    """Return by how many lanes the first tile is narrower than the others, whole registers."""
    return -rows % lanes // register * register


def estimate(problem: Problem) -> float:
    """Return how many nanoseconds of one core the problem takes at most, roughly."""
    B, H, T, D = problem.query.shape
    E = D if problem.value is None else problem.value.shape[3]
    seen = min(problem.key.shape[2], problem.left + problem.right + 1)
    width = problem.real.itemsize * 16 / VECTOR_BYTES  # 1 for float32 in the widest registers
    slow = 20.0 if problem.score_mod is not None else 0.5 * width
    return float(B * H * T * seen * (0.02 * width * (D + E) + slow))


def blocks_of(problem: Problem) -> tuple[int, int]:
    """Return in how many blocks of sources a target's lie, and in how many those that it sees."""
    S = problem.key.shape[2]
    blocks = max(-(-S // SOURCES), 1)
    return blocks, min(blocks, (problem.left + problem.right) // SOURCES + 1)


def pack(
    problem: Problem,
    out: Array,
    *,
    rows: int,
    lse: Array | None = None,
    sinks: Array | None = None,
    heads: Array | None = None,
    queries: Array | None = None,
    attended: Array | None = None,
) -> NDArray[Any]:
    """Return the record of a problem; its arrays must stay alive while a kernel reads it.

    ``rows`` is how many targets a tile may be filled with, which decides the lanes. The other
    arrays are contiguous: lse (B, H, T) and sinks (H,) in the computation dtype, the chosen heads
    and queries int64.
    """
    B, H, T, D = problem.query.shape
    G, S = problem.key.shape[1:3]
    value, bias, real = problem.value, problem.bias, problem.real
    reshaped = problem.softcap != 0 or bias is not None or problem.score_mod is not None
    record = bytearray(_BYTES.size)
    _BYTES.pack_into(
        record, 0, *UNSTARTED,
        B, H, G, T, S, D, 0 if value is None else value.shape[3],
        lanes_for(rows, real), kind_of(problem.query.dtype), real.itemsize, reshaped,
        problem.left, problem.right,
        address_of(problem.query_offset), address_of(problem.key_lengths),
        address_of(sinks), address_of(lse),
        *where(problem.query), *where(problem.key), *where(value), *where(problem.mask),
        *where(bias), 0 if bias is None else kind_of(bias.dtype), *where(out),
        address_of(heads), address_of(queries),
        0 if heads is None else heads.size, 0 if queries is None else queries.size,
        0, 0, 0,  # arguments, partials and pairs: a user's, and what decoding keeps; told later
        *where(attended), problem.scale, problem.softcap,
    )  # fmt: skip
    return np.frombuffer(record, CALL[real])
