"""Weights of chosen heads and targets, and what they sum the values to, in one pass.

One work item is one tile of targets of one head. Its scores of every source stay in scratch,
(S, lanes), until the top and the sum of each lane are known: exp2 is taken once, and the weights
that are written are the ones that the values are summed by. Of a tile that is not filled only the
chosen targets' columns are kept, so that a few rows take the memory of those rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from mhakit.backends.cpu.call import CALL, SOURCES, estimate, lanes_for, pack
from mhakit.backends.cpu.flags import inlined, part
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, read_int64, take
from mhakit.backends.cpu.modified import Modified
from mhakit.backends.cpu.rows import store_rows, widen_rows
from mhakit.backends.cpu.simd import (
    VECTOR_BYTES,
    accumulate,
    accumulate_visible,
    column_tops,
    column_weights,
    exp2,
)
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import FLOAT16
from mhakit.backends.cpu.tiles import (
    HEAD,
    LOG2E,
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

__all__ = ["weigh"]

SHORT = 8
"""Weights in the shortest sums, of which a block's is made: a long sum would round by more."""


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


def weigh(
    problem: Problem,
    heads: NDArray[np.int64],
    queries: NDArray[np.int64],
    out: NDArray[Any],
    attended: NDArray[Any] | None = None,
) -> None:
    """Write the weights of the chosen heads and targets, (B, len, len, S), to ``out``.

    Where ``attended``, (B, len, len, E), is given, write what they sum the values to, too.
    """
    if out.size == 0:
        if attended is not None:
            attended[...] = 0
        return
    heads, queries = np.ascontiguousarray(heads), np.ascontiguousarray(queries)
    sinks = None if problem.sinks is None else np.ascontiguousarray(problem.sinks, problem.real)
    call = pack(
        problem, out, rows=queries.size, sinks=sinks, heads=heads, queries=queries,
        attended=attended,
    )  # fmt: skip
    tiles = -(-queries.size // lanes_for(queries.size, problem.real))
    B, H, T, _ = problem.query.shape
    items, work = B * heads.size * tiles, estimate(problem) * heads.size * queries.size / (H * T)
    if problem.score_mod is None:
        run_in_slices(_run.of(problem.real), call, items, work)
    else:
        _run_modified.run(problem, call, items, work)


@part
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    packed, weights = (
        aligned(real, call.D, lanes),
        aligned(real, call.S, min(lanes, call.num_queries)),
    )
    room = aligned(real, SOURCES if call.num_queries < lanes else 1, lanes)
    sums, columns = aligned(real, call.E, lanes), aligned(real, 5, lanes)
    staged, turned = scratch_for(call, real)
    places = places_of(lanes)
    tiles = -(-call.num_queries // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        _weigh_tile(
            call, real, pair // call.num_heads, pair % call.num_heads, item % tiles * lanes, places,
            packed, weights, room, sums, columns, staged, turned, score_mod, score_args,
        )  # fmt: skip
    end(calls)


@part
def _weigh_tile(
    call, real, b, i, first_row, places, packed, weights, room, sums, columns, staged, turned,
    score_mod, score_args,
):  # fmt: skip
    """Write weights, and sums where asked, of chosen targets from ``first_row`` of head i."""
    cast = type(real)
    lanes, last, S = call.lanes, call.num_queries - 1, call.S
    head = read_int64(call.heads + 8 * i)
    for lane in range(lanes):
        row = min(first_row + lane, last)  # spare lanes repeat the last target
        places[HEAD, lane] = head
        places[TARGET, lane] = read_int64(call.queries + 8 * row)
    place(call, b, places)
    pack_queries(call, real, b, 1.0, places, packed)
    g = head // (call.H // call.G)
    value = call.value + b * call.value_b + g * call.value_h
    out = call.out + b * call.out_b + i * call.out_h
    first, past, all_first, all_past = find_span(places)
    # whole blocks: a weight is added to the same partial sum whatever the other lanes see
    begin, stop = first // SOURCES * SOURCES, min(S, -(-past // SOURCES) * SOURCES)

    narrow = weights.shape[1] < lanes
    base, total, zeros, ones = columns[0], columns[1], columns[2], columns[3]
    partial = columns[4]
    sink = sink_of(call, real, head)
    for lane in range(lanes):
        base[lane], zeros[lane], ones[lane] = sink, cast(0), cast(1)
    for source in range(begin, stop, SOURCES):
        rows = min(SOURCES, stop - source)
        block = room[:rows] if narrow else weights[source : source + rows]
        score_block(
            call, real, b, g, source, rows, places, lanes * call.item,
            all_first <= source and source + rows <= all_past, packed, staged, turned, block,
            1.0, score_mod, score_args,
        )  # fmt: skip
        for offset in range(0, lanes * call.item, VECTOR_BYTES):
            step = lanes * call.item
            column_tops(real, address(block) + offset, step, rows, address(base) + offset)
        if narrow:
            _keep(weights, source, block)
    for lane in range(lanes):
        base[lane] = cast(0) if base[lane] == cast(-np.inf) else base[lane]
        total[lane] = exp2((sink - base[lane]) * cast(LOG2E))
    fill(sums, cast(0))
    for source in range(begin, stop, SOURCES):
        rows = min(SOURCES, stop - source)
        block = room[:rows] if narrow else weights[source : source + rows]
        if narrow:
            _take_up(weights, source, block)
        # to powers of two only now: times log2(e) before, a large score would round by more
        for s in range(rows):
            for lane in range(lanes):
                block[s, lane] = (block[s, lane] - base[lane]) * cast(LOG2E)
        hides = False
        for lane in range(lanes):
            partial[lane] = cast(0)
        for s in range(0, rows, SHORT):
            for offset in range(0, lanes * call.item, VECTOR_BYTES):
                hides |= column_weights(
                    real, address(block) + s * lanes * call.item + offset, lanes * call.item,
                    min(SHORT, rows - s), address(zeros) + offset, address(partial) + offset,
                )  # fmt: skip
        for lane in range(lanes):
            total[lane] += partial[lane]
        if call.attended != 0:
            _add_values(
                call, real, value + source * call.value_s, rows, hides, block, staged, ones, sums
            )
        if narrow:
            _keep(weights, source, block)
    for lane in range(lanes):
        total[lane] = cast(0) if total[lane] == cast(0) else cast(1) / total[lane]
    for source in range(0, S, SOURCES):
        rows = min(SOURCES, S - source)
        block = room[:rows] if narrow else weights[source : source + rows]
        if begin <= source and source < stop:
            if narrow:
                _take_up(weights, source, block)
            _scale(real, total, block)
        else:
            fill(block, cast(0))
        for lane in range(lanes):
            row = min(first_row + lane, last)
            places[ROW, lane] = out + row * call.out_t + source * call.out_e
        store_rows(real, call.kind, places[ROW], call.out_e, rows, block)
    if call.attended != 0:
        _scale(real, total, sums)
        attended = call.attended + b * call.attended_b + i * call.attended_h
        for lane in range(lanes):
            places[ROW, lane] = attended + min(first_row + lane, last) * call.attended_t
        store_rows(real, call.kind, places[ROW], call.attended_e, call.E, sums)


@inlined
def _keep(kept, source, tile):
    """Write the chosen targets' columns of a tile to rows of ``kept`` from ``source``."""
    for i in range(tile.shape[0]):
        for lane in range(kept.shape[1]):
            kept[source + i, lane] = tile[i, lane]


@inlined
def _take_up(kept, source, tile):
    """Read a tile back; spare lanes repeat the last column."""
    for i in range(tile.shape[0]):
        for lane in range(tile.shape[1]):
            tile[i, lane] = kept[source + i, min(lane, kept.shape[1] - 1)]


@inlined
def _add_values(call, real, row, rows, hides, weights, staged, ones, sums):
    """Add the weighted values of a block of sources, the first at ``row``, to the sums."""
    step = call.lanes * call.item
    row_stride, across = call.value_s, call.value_e
    if call.kind >= FLOAT16:
        widen_rows(real, call.kind, row, row_stride, across, rows, call.E, staged)
        row, row_stride, across = address(staged), staged.strides[0], np.int64(staged.itemsize)
    if hides:
        accumulate_visible(
            real, row, across, row_stride, address(weights), address(sums), step, step,
            call.E, rows, address(ones),
        )  # fmt: skip
    else:
        accumulate(
            real, row, across, row_stride, address(weights), address(sums), step, step,
            call.E, rows, address(ones),
        )  # fmt: skip


@inlined
def _scale(real, factors, tile):
    """Multiply each lane by its factor; no zero stays -0.0."""
    zero = type(real)(0)
    for i in range(tile.shape[0]):
        for lane in range(factors.size):
            tile[i, lane] = tile[i, lane] * factors[lane] + zero
