"""Scores of chosen heads and targets: one work item is one tile of targets of one head.

The tile product of attention, its scores written out as softmax would receive them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from mhakit.backends.cpu.call import SOURCES, estimate, lanes_for, pack
from mhakit.backends.cpu.flags import part
from mhakit.backends.cpu.launch import Kernel
from mhakit.backends.cpu.memory import FLOAT32, FLOAT64, address, fetch_add, read_int64
from mhakit.backends.cpu.rows import store_rows
from mhakit.backends.cpu.score_mod import compiled
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.softmax import normalize
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

__all__ = ["score", "weigh"]


def _score(calls, real, score_mod, score_args):
    """Write the scores of work items [counter, stop), one worker a thread."""
    for _ in prange(calls[0].workers):
        _work(calls, real, score_mod, score_args)


_run = Kernel(_score)
_run_modified = Kernel(_score, cached=False)  # a user's function is compiled in


def score(problem: Problem, out: NDArray[Any]) -> None:
    """Write the scores as softmax would receive them, (B, H, T, S), to ``out``."""
    H, T = problem.query.shape[1:3]
    _score_chosen(problem, np.arange(H), np.arange(T), out)


def weigh(
    problem: Problem, heads: NDArray[np.int64], queries: NDArray[np.int64], out: NDArray[Any]
) -> None:
    """Write the weights of the chosen heads and targets, (B, len, len, S), to ``out``."""
    scores = out if out.dtype == problem.real else np.empty(out.shape, problem.real)
    _score_chosen(problem, heads, queries, scores)
    sinks = None if problem.sinks is None else problem.sinks[heads]
    normalize(scores, sinks, out)


def _score_chosen(
    problem: Problem, heads: NDArray[np.int64], queries: NDArray[np.int64], out: NDArray[Any]
) -> None:
    """Write the scores of the chosen heads and targets, (B, len, len, S), to ``out``."""
    heads, queries = np.ascontiguousarray(heads), np.ascontiguousarray(queries)
    call = pack(problem, out, rows=queries.size, heads=heads, queries=queries)
    tiles = -(-queries.size // lanes_for(queries.size, problem.real))
    score_mod = compiled(problem)
    kernel = _run if score_mod is None else _run_modified
    run_in_slices(
        kernel, call, problem.query.shape[0] * heads.size * tiles, estimate(problem),
        problem.real.type(1), score_mod, problem.score_args,
    )  # fmt: skip


@part
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    packed, scores = aligned(real, call.D, lanes), aligned(real, SOURCES, lanes)
    staged, turned = scratch_for(call, real)
    places = places_of(lanes)
    tiles = -(-call.num_queries // lanes)
    while True:
        item = fetch_add(address(calls), 1)
        if item >= call.stop:
            break
        pair = item // tiles
        _score_tile(
            call, real, pair // call.num_heads, pair % call.num_heads, item % tiles * lanes, places,
            packed, scores, staged, turned, score_mod, score_args,
        )  # fmt: skip


@part
def _score_tile(
    call, real, b, i, first_row, places, packed, scores, staged, turned, score_mod, score_args
):
    """Write every source's score for chosen targets [first_row, first_row + lanes) of head i."""
    last, S = call.num_queries - 1, call.S
    head = read_int64(call.heads + 8 * i)
    for lane in range(call.lanes):
        row = min(first_row + lane, last)  # spare lanes repeat the last target
        places[HEAD, lane] = head
        places[TARGET, lane] = read_int64(call.queries + 8 * row)
    place(call, b, places)
    pack_queries(call, real, b, 1.0, places, packed)
    first, past, all_first, all_past = find_span(places)
    native = FLOAT32 if scores.itemsize == 4 else FLOAT64
    out = call.out + b * call.out_b + i * call.out_h
    for source in range(0, S, SOURCES):
        rows = min(source + SOURCES, S) - source
        if first < source + rows and source < past:
            score_block(
                call, real, b, head // (call.H // call.G), source, rows, places,
                all_first <= source and source + rows <= all_past, packed, staged, turned, scores,
                1.0, score_mod, score_args,
            )  # fmt: skip
        else:
            fill(scores, type(real)(-np.inf))
        for lane in range(call.lanes):
            row = min(first_row + lane, last)
            places[ROW, lane] = out + row * call.out_t + source * call.out_e
        store_rows(real, native, places[ROW], call.out_e, rows, scores)
