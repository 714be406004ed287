"""Softmax over sources: one work item is a few rows, each a line of registers.

A long row goes in three passes over its blocks: its top, its weights and their sum, its output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import greater, lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, take
from mhakit.backends.cpu.record import HEAD, address_of, pack, records, where
from mhakit.backends.cpu.rows import load_row, store_row
from mhakit.backends.cpu.scratch import release, reserve, state_of, state_size
from mhakit.backends.cpu.simd import VECTOR_BYTES, exp2, line_top, line_weights
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import kind_of
from mhakit.backends.cpu.tiles import LOG2E, sink_of
from mhakit.problem import computation_dtype

__all__ = ["normalize"]

_INTEGERS = (
    *HEAD, "B", "H", "T", "S", "item", "share", "sinks", "kind", "out_kind",
    "scores", "scores_b", "scores_h", "scores_t", "scores_s",
    "out", "out_b", "out_h", "out_t", "out_s",
)  # fmt: skip

ROWS = records(_INTEGERS)
"""Scores and output as addresses and byte strides; letters as in `mhakit.problem`."""

SHARE = 8
"""Short rows in one work item; a long row is one."""

BLOCK = 2**15
"""Numbers of a row in one block, whole registers."""

TOP, TOTAL = 0, 1
"""What a row's state holds behind a register of sums."""


def _enter(calls):
    """Be one worker."""
    rows = records_at(calls, 1)
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
    blocks = -(-S // BLOCK)
    share = SHARE if blocks == 1 else 1
    numbers = (B, H, T, S, real.itemsize, share, address_of(sinks))
    kinds = (kind_of(scores.dtype), kind_of(out.dtype))
    calls = pack(ROWS[real], (*numbers, *kinds, *where(scores), *where(out)))
    state = (2 + -(-S * real.itemsize // VECTOR_BYTES)) * VECTOR_BYTES
    run_in_slices(
        _run.of(real), calls, -(-B * H * T // share), 1.0 * scores.size,
        unknown=True, blocks=1 if share > 1 else 3 * blocks, state=state,
    )  # fmt: skip


@inlined
def _work(calls, real):
    """Take work items until none is left, with a line made once."""
    call = calls[0]
    rows = call.B * call.H * call.T
    room, _, (own,) = reserve(real, (0, 0), ((1, state_size(call)),))
    if room == 0:
        return
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        for row in range(item * call.share, lesser((item + 1) * call.share, rows)):
            state = numbers_at(real, state_of(call, item, own), (1, call.state_bytes // call.item))[
                0
            ]
            _normalize_row(call, real, row, state)
    release(room)
    end(calls)


@inlined
def _normalize_row(call, real, row, state):
    """Do the blocks of this launch of one row: they count through the passes."""
    cast = type(real)
    registers = VECTOR_BYTES // call.item
    sums, kept, line = state[:registers], state[registers:], state[2 * registers :]
    b, h, t = row // (call.H * call.T), row // call.T % call.H, row % call.T
    sink = sink_of(call, real, h)
    blocks = -(-call.S // BLOCK)
    first, past = call.first_block, call.past_block
    if first == 0:
        kept[TOP], kept[TOTAL] = sink, cast(0)
        for lane in range(registers):
            sums[lane] = cast(0)

    given = call.scores + b * call.scores_b + h * call.scores_h + t * call.scores_t
    for block in range(first, lesser(past, blocks)):
        some = line[block * BLOCK : lesser((block + 1) * BLOCK, call.S)]
        load_row(
            real, call.kind, given + block * BLOCK * call.scores_s, call.scores_s, some.size, some
        )
        whole = -(-some.size // registers)
        for s in range(some.size, whole * registers):
            line[block * BLOCK + s] = cast(-np.inf)
        top = line_top(real, address(some), whole)
        kept[TOP] = top if top > kept[TOP] else kept[TOP]

    base = cast(0) if kept[TOP] == cast(-np.inf) else kept[TOP]
    for block in range(greater(first - blocks, 0), lesser(past - blocks, blocks)):
        some = line[block * BLOCK : lesser((block + 1) * BLOCK, call.S)]
        kept[TOTAL] = line_weights(
            real, address(some), -(-some.size // registers), base, cast(LOG2E), address(sums)
        )

    total = kept[TOTAL] + exp2((sink - base) * cast(LOG2E))
    share = cast(0) if total == cast(0) else cast(1) / total
    written = call.out + b * call.out_b + h * call.out_h + t * call.out_t
    for block in range(greater(first - 2 * blocks, 0), lesser(past - 2 * blocks, blocks)):
        some = line[block * BLOCK : lesser((block + 1) * BLOCK, call.S)]
        store_row(
            real, call.out_kind, written + block * BLOCK * call.out_s, call.out_s, some.size, some,
            share,
        )  # fmt: skip
