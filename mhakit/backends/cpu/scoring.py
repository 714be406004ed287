"""Scores of chosen heads and targets: one work item is one tile of targets of one head.

The tile product of attention, its scores written out as softmax would receive them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, prange
from numpy.typing import NDArray

from mhakit.backends.cpu.call import CALL, SOURCES, estimate, lanes_for, pack
from mhakit.backends.cpu.flags import part
from mhakit.backends.cpu.launch import Kernel, Worker
from mhakit.backends.cpu.memory import address, end, read_int64, take
from mhakit.backends.cpu.rows import store_row, store_rows
from mhakit.backends.cpu.score_mod import compiled
from mhakit.backends.cpu.simd import VECTOR_BYTES
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.softmax import normalize_line
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
    sink_of,
)
from mhakit.problem import Problem

__all__ = ["score", "weigh"]


def _enter(calls):
    """Be one worker."""
    records = carray(calls, 1)
    _work(records, records[0].one, None, ())


def _modified(calls, real, score_mod, score_args):
    """Run all workers, a user's function compiled into them."""
    for _ in prange(calls[0].workers):
        _work(calls, real, score_mod, score_args)


_run = Worker(_enter, CALL)
_run_modified = Kernel(_modified, cached=False)


def score(problem: Problem, out: NDArray[Any]) -> None:
    """Write the scores as softmax would receive them, (B, H, T, S), to ``out``."""
    H, T = problem.query.shape[1:3]
    _score_chosen(problem, np.arange(H), np.arange(T), out)


def weigh(
    problem: Problem, heads: NDArray[np.int64], queries: NDArray[np.int64], out: NDArray[Any]
) -> None:
    """Write the weights of the chosen heads and targets, (B, len, len, S), to ``out``."""
    _score_chosen(problem, heads, queries, out, weighs=True)


def _score_chosen(
    problem: Problem,
    heads: NDArray[np.int64],
    queries: NDArray[np.int64],
    out: NDArray[Any],
    *,
    weighs: bool = False,
) -> None:
    """Write the scores, or weights, of the chosen heads and targets to ``out``."""
    if out.size == 0:
        return
    heads, queries = np.ascontiguousarray(heads), np.ascontiguousarray(queries)
    sinks = None if problem.sinks is None else np.ascontiguousarray(problem.sinks, problem.real)
    call = pack(
        problem, out, rows=queries.size, sinks=sinks, heads=heads, queries=queries, weighs=weighs
    )
    tiles = -(-queries.size // lanes_for(queries.size, problem.real))
    items, work = problem.query.shape[0] * heads.size * tiles, estimate(problem)
    if problem.score_mod is None:
        run_in_slices(_run.of(problem.real), call, items, work)
    else:
        arguments = problem.real.type(1), compiled(problem), problem.score_args
        run_in_slices(_run_modified, call, items, work, *arguments)


@part
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    packed, scores = aligned(real, call.D, lanes), aligned(real, SOURCES, lanes)
    staged, turned = scratch_for(call, real)
    places = places_of(lanes)
    # weights are made of whole rows of scores, which stay near until then
    registers = VECTOR_BYTES // call.item
    wide = -(-call.S // registers) * registers if call.weighs else 0
    lines = aligned(real, min(lanes, call.num_queries), wide)
    tiles = -(-call.num_queries // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        _score_tile(
            call, real, pair // call.num_heads, pair % call.num_heads, item % tiles * lanes, places,
            packed, scores, lines, staged, turned, score_mod, score_args,
        )  # fmt: skip
    end(calls)


@part
def _score_tile(
    call, real, b, i, first_row, places, packed, scores, lines, staged, turned, score_mod,
    score_args,
):  # fmt: skip
    """Write every source's score, or weight, for chosen targets from ``first_row`` of head i."""
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
            if call.weighs:
                line = address(lines) + (row - first_row) * lines.strides[0]
                places[ROW, lane] = line + source * call.item
            else:
                places[ROW, lane] = out + row * call.out_t + source * call.out_e
        stride = call.item if call.weighs else call.out_e
        store_rows(real, native, places[ROW], stride, rows, scores)
    if call.weighs:
        for row in range(first_row, min(first_row + call.lanes, last + 1)):
            line = lines[row - first_row]
            share = normalize_line(real, line, S, sink_of(call, real, head))
            store_row(real, call.kind, out + row * call.out_t, call.out_e, S, line, share)
