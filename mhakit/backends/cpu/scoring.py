"""Scores: one work item is one tile of targets of one head.

The tile product of attention, its scores written out as softmax would receive them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from mhakit.backends.cpu.call import CALL, SOURCES, estimate, lanes_for, pack
from mhakit.backends.cpu.flags import part
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import end, take
from mhakit.backends.cpu.modified import Modified
from mhakit.backends.cpu.rows import store_rows
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import FLOAT32, FLOAT64
from mhakit.backends.cpu.tiles import (
    HEAD,
    ROW,
    TARGET,
    aligned,
    fill,
    find_span,
    pack_queries,
    place,
    places_of,
    score_block,
    scratch_for,
)
from mhakit.problem import Problem

__all__ = ["score"]


def _enter(calls):
    """Be one worker."""
    records = carray(calls, 1)
    _work(records, records[0].one, None, ())


def _enter_with(score_mod, load):
    """Return a worker that a user's function is compiled into."""

    def enter(calls):
        records = carray(calls, 1)
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
    items, work = B * H * -(-T // lanes_for(T, problem.real)), estimate(problem)
    if problem.score_mod is None:
        run_in_slices(_run.of(problem.real), call, items, work)
    else:
        _run_modified.run(problem, call, items, work)


@part
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    packed, scores = aligned(real, call.D, lanes), aligned(real, SOURCES, lanes)
    staged, turned = scratch_for(call, real)
    places = places_of(lanes)
    tiles = -(-call.T // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        _score_tile(
            call, real, pair // call.H, pair % call.H, item % tiles * lanes, places, packed,
            scores, staged, turned, score_mod, score_args,
        )  # fmt: skip
    end(calls)


@part
def _score_tile(
    call, real, b, head, first_row, places, packed, scores, staged, turned, score_mod, score_args
):
    """Write every source's score for the targets [first_row, first_row + lanes) of one head."""
    last, lanes, S = call.T - 1, call.lanes, call.S
    for lane in range(lanes):
        places[HEAD, lane] = head
        places[TARGET, lane] = min(first_row + lane, last)  # spare lanes repeat the last target
    place(call, b, places)
    pack_queries(call, real, b, 1.0, places, packed)
    first, past, all_first, all_past = find_span(places)
    native = FLOAT32 if scores.itemsize == 4 else FLOAT64
    out = call.out + b * call.out_b + head * call.out_h
    for source in range(0, S, SOURCES):
        rows = min(source + SOURCES, S) - source
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
        store_rows(real, native, places[ROW], call.out_e, rows, scores)
