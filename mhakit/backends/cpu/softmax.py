"""Softmax over sources: one work item is a few rows, each a line of registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from mhakit.backends.cpu.flags import inlined, part
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, take
from mhakit.backends.cpu.record import HEAD, address_of, records, where
from mhakit.backends.cpu.rows import load_row, store_row
from mhakit.backends.cpu.simd import VECTOR_BYTES, exp2, line_top, line_weights
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import kind_of
from mhakit.backends.cpu.tiles import LOG2E, aligned, sink_of
from mhakit.problem import computation_dtype

__all__ = ["normalize"]

_INTEGERS = (
    *HEAD, "B", "H", "T", "S", "item", "sinks", "kind", "out_kind",
    "scores", "scores_b", "scores_h", "scores_t", "scores_s",
    "out", "out_b", "out_h", "out_t", "out_s",
)  # fmt: skip

ROWS = records(_INTEGERS)
"""Scores and output as addresses and byte strides; letters as in `mhakit.problem`."""

SHARE = 8
"""Rows in one work item."""


def _enter(calls):
    """Be one worker."""
    rows = carray(calls, 1)
    _work(rows, rows[0].one)


_run = Worker(_enter, ROWS)


def normalize(scores: NDArray[Any], sinks: NDArray[Any] | None, out: NDArray[Any]) -> None:
    """Write softmax over S of ``scores``, (B, H, T, S), to ``out``, which may be ``scores``."""
    real = computation_dtype(out.dtype)
    B, H, T, S = scores.shape
    if 0 in scores.shape:
        return
    if sinks is not None:
        sinks = np.ascontiguousarray(sinks, dtype=real)
    numbers = (B, H, T, S, real.itemsize, address_of(sinks))
    kinds = (kind_of(scores.dtype), kind_of(out.dtype))
    head = (0, 0, 0, 0)
    calls = np.array([(*head, *numbers, *kinds, *where(scores), *where(out), 1)], ROWS[real])
    run_in_slices(_run.of(real), calls, -(-B * H * T // SHARE), 1.0 * scores.size)


@part
def _work(calls, real):
    """Take work items until none is left, with a line made once."""
    call = calls[0]
    rows = call.B * call.H * call.T
    registers = VECTOR_BYTES // call.item
    line = aligned(real, 1, -(-call.S // registers) * registers)[0]
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        for row in range(item * SHARE, min((item + 1) * SHARE, rows)):
            b, h, t = row // (call.H * call.T), row // call.T % call.H, row % call.T
            given = call.scores + b * call.scores_b + h * call.scores_h + t * call.scores_t
            load_row(real, call.kind, given, call.scores_s, call.S, line)
            written = call.out + b * call.out_b + h * call.out_h + t * call.out_t
            share = _normalize_line(real, line, call.S, sink_of(call, real, h))
            store_row(real, call.out_kind, written, call.out_s, call.S, line, share)
    end(calls)


@inlined
def _normalize_line(real, line, count, sink):
    """Turn ``count`` scores into weights, -0.0 where hidden; return what they are to be times.

    ``line`` is aligned and long enough for whole registers; its tail is written.
    """
    cast = type(real)
    registers = VECTOR_BYTES // line.itemsize
    whole = -(-count // registers)
    for s in range(count, whole * registers):
        line[s] = cast(-np.inf)
    top = line_top(real, address(line), whole)
    top = sink if sink > top else top
    base = cast(0) if top == cast(-np.inf) else top
    total = line_weights(real, address(line), whole, base, cast(LOG2E))
    total += exp2((sink - base) * cast(LOG2E))
    return cast(0) if total == cast(0) else cast(1) / total
