"""Scores: one work item is one tile of targets of one head.

The tile product of attention, its scores written out as softmax would receive them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import records_at
from mhakit.backends.cpu.call import CALL, SOURCES, WRITING, blocks_of, estimate, lanes_for, pack
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import end, take
from mhakit.backends.cpu.modified import Modified
from mhakit.backends.cpu.rows import store_rows
from mhakit.backends.cpu.scratch import release, reserve
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import FLOAT32, FLOAT64
from mhakit.backends.cpu.tiles import (
    HEAD,
    ROW,
    TARGET,
    fill,
    find_span,
    pack_queries,
    place,
    score_block,
    staged_shape,
    turned_shape,
)
from mhakit.problem import Problem

__all__ = ["score"]


def _enter(calls):
    """Be one worker."""
    records = records_at(calls, 1)
    _work(records, records[0].one, None, ())


def _enter_with(score_mod, load):
    """Return a worker that a user's function is compiled into."""

    def enter(calls):
        records = records_at(calls, 1)
        _work(records, records[0].one, score_mod, load(records[0].arguments))

    return enter


_run = Worker(_enter, CALL)
_run_modified = Modified(_enter_with, CALL)


def score(problem: Problem, out: NDArray[Any]) -> None:
    """Write the scores as softmax would receive them, (B, H, T, S), to ``out``."""
    if out.size == 0:
        return
    B, H, T, _ = problem.query.shape
    call = pack(problem, out, rows=T)
    lanes = lanes_for(T, problem.real)
    items = B * H * -(-T // lanes)
    work = (estimate(problem) + WRITING * out.size) * items * lanes / (B * H * T)  # spare ones, too
    blocks = blocks_of(problem)[0]
    if problem.score_mod is None:
        kernel = _run.of(problem.real)
        run_in_slices(kernel, call, items, work, unknown=True, blocks=blocks)
    else:
        _run_modified.run(problem, call, items, work, blocks=blocks)


@inlined
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    room, places, (packed, scores, ones, staged, turned) = reserve(
        real,
        (6, lanes),
        ((call.D, lanes), (SOURCES, lanes), (1, lanes), staged_shape(call), turned_shape(call)),
    )
    if room == 0:
        return
    fill(ones, type(real)(1))
    tiles = -(-call.T // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        _score_tile(
            call, real, pair // call.H, pair % call.H, item % tiles * lanes, places, packed,
            scores, ones[0], staged, turned, score_mod, score_args,
        )  # fmt: skip
    release(room)
    end(calls)


@inlined
def _score_tile(
    call, real, b, head, first_row, places, packed, scores, ones, staged, turned, score_mod,
    score_args,
):  # fmt: skip
    """Write the scores of this launch's blocks for the targets from ``first_row`` of one head."""
    last, lanes, S = call.T - 1, call.lanes, call.S
    for lane in range(lanes):
        places[HEAD, lane] = head
        places[TARGET, lane] = lesser(first_row + lane, last)  # spare lanes repeat the last target
    place(call, b, places)
    pack_queries(call, real, b, 1.0, places, packed)
    first, past, all_first, all_past = find_span(places)
    native = FLOAT32 if scores.itemsize == 4 else FLOAT64
    out = call.out + b * call.out_b + head * call.out_h
    stop = lesser(call.past_block * SOURCES, S)
    for source in range(call.first_block * SOURCES, stop, SOURCES):
        rows = lesser(source + SOURCES, S) - source
        if first < source + rows and source < past:
            score_block(
                call, real, b, head // (call.H // call.G), source, rows, places, lanes * call.item,
                all_first <= source and source + rows <= all_past, packed, staged, turned, scores,
                1.0, score_mod, score_args,
            )  # fmt: skip
        else:
            fill(scores, type(real)(-np.inf))
        for lane in range(lanes):
            t = places[TARGET, lane]
            places[ROW, lane] = out + t * call.out_t + source * call.out_e
        store_rows(real, native, places[ROW], call.out_e, rows, scores, ones)
