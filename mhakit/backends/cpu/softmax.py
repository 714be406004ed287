"""Softmax over sources: one work item is one row, laid over the lanes of a few registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from mhakit.backends.cpu.call import address_of, lanes_for, where
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.launch import Kernel, threads
from mhakit.backends.cpu.memory import FLOAT32, FLOAT64, address, kind_of, read, write
from mhakit.backends.cpu.simd import VECTOR_BYTES, column_tops, column_weights, exp2
from mhakit.backends.cpu.tiles import LOG2E, aligned
from mhakit.problem import computation_dtype

__all__ = ["normalize"]

_INTEGERS = (
    "B", "H", "T", "S", "lanes", "workers", "sinks", "kind", "out_kind",
    "scores", "scores_b", "scores_h", "scores_t", "scores_s",
    "out", "out_b", "out_h", "out_t", "out_s",
)  # fmt: skip

ROWS = np.dtype([(name, np.int64) for name in _INTEGERS])
"""Scores and output as addresses and byte strides; letters as in `mhakit.problem`."""


def _normalize(calls, real):
    """Write softmax of every row, each worker a run of rows."""
    for worker in prange(calls[0].workers):
        call = calls[0]
        rows = call.B * call.H * call.T
        values = aligned(real, -(-call.S // call.lanes), call.lanes)
        columns = aligned(real, 3, call.lanes)
        for row in range(rows * worker // call.workers, rows * (worker + 1) // call.workers):
            _normalize_row(call, real, row, values, columns)


_run = Kernel(_normalize)


def normalize(scores: NDArray[Any], sinks: NDArray[Any] | None, out: NDArray[Any]) -> None:
    """Write softmax over S of ``scores``, (B, H, T, S), to ``out``, which may be ``scores``."""
    real = computation_dtype(out.dtype)
    B, H, T, S = scores.shape
    if 0 in scores.shape:
        return
    if sinks is not None:
        sinks = np.ascontiguousarray(sinks, dtype=real)
    numbers = (B, H, T, S, lanes_for(S, real), threads(), address_of(sinks))
    kinds = (kind_of(scores.dtype), kind_of(out.dtype))
    calls = np.array([(*numbers, *kinds, *where(scores), *where(out))], ROWS)
    _run(calls, real.type(1), work=1.0 * scores.size)


@inlined
def _normalize_row(call, real, row, values, columns):
    """Write one row: top, powers of two of what lies below it, their sum, the quotient."""
    cast = type(real)
    S, lanes = call.S, call.lanes
    b, h, t = row // (call.H * call.T), row // call.T % call.H, row % call.T
    given = call.scores + b * call.scores_b + h * call.scores_h + t * call.scores_t
    written = call.out + b * call.out_b + h * call.out_h + t * call.out_t
    flat = values.reshape(values.size)
    for s in range(S):
        flat[s] = read(real, call.kind, given + s * call.scores_s)
    for s in range(S, flat.size):
        flat[s] = cast(-np.inf)

    rows, step = values.shape[0], lanes * values.itemsize
    tops, base, sums = columns[0], columns[1], columns[2]
    for lane in range(lanes):
        tops[lane], sums[lane], base[lane] = cast(-np.inf), cast(0), cast(0)
    for offset in range(0, step, VECTOR_BYTES):
        column_tops(real, address(values) + offset, step, rows, address(tops) + offset)
    top = tops[0]
    for lane in range(1, lanes):
        top = max(top, tops[lane])
    sink = cast(-np.inf)
    if call.sinks:
        sink = read(
            real, FLOAT32 if values.itemsize == 4 else FLOAT64, call.sinks + h * values.itemsize
        )
        if not top >= sink:
            top = sink
    if top == cast(-np.inf):
        top = cast(0)
    for s in range(flat.size):
        flat[s] = (flat[s] - top) * cast(LOG2E)
    for offset in range(0, step, VECTOR_BYTES):
        column_weights(
            real,
            address(values) + offset,
            step,
            rows,
            address(base) + offset,
            address(sums) + offset,
        )
    total = exp2((sink - top) * cast(LOG2E)) if call.sinks else cast(0)
    for lane in range(lanes):
        total += sums[lane]
    share = cast(0) if total == cast(0) else cast(1) / total
    for s in range(S):
        # adding 0 turns the mark of a hidden source, -0.0, into 0.0
        write(call.out_kind, written + s * call.out_s, flat[s] * share + cast(0))
