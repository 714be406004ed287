"""Weights of chosen heads and targets, and what they sum the values to, in one pass.

One work item is one tile of targets of one head. Its scores of every source stay in scratch,
(S, lanes), until the top and the sum of each lane are known: exp2 is taken once, and the weights
that are written are the ones that the values are summed by. Of a tile that is not filled only the
chosen targets' columns are kept, so that a few rows take the memory of those rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.call import CALL, SOURCES, WRITING, blocks_of, estimate, lanes_for, pack
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import greater, lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, read_int64, take
from mhakit.backends.cpu.modified import Modified
from mhakit.backends.cpu.rows import store_rows, widened
from mhakit.backends.cpu.scratch import release, reserve, state_of, state_size
from mhakit.backends.cpu.simd import (
    VECTOR_BYTES,
    column_tops,
    column_weights_scaled,
    exp2,
)
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.tiles import (
    HEAD,
    LOG2E,
    ROW,
    TARGET,
    fill,
    find_span,
    pack_queries,
    place,
    score_block,
    sink_of,
    staged_shape,
    turned_shape,
)
from mhakit.backends.cpu.values import add_values, leaks
from mhakit.problem import Problem

__all__ = ["weigh"]

SHORT = 8
"""Weights in the shortest sums, of which a block's is made: a long sum would round by more."""


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
    real, S = problem.real, problem.key.shape[2]
    E = 0 if problem.value is None else problem.value.shape[3]
    lanes = lanes_for(queries.size, real)
    B, H, T, _ = problem.query.shape
    items = B * heads.size * -(-queries.size // lanes)
    chosen = items * lanes / (B * H * T)  # spare lanes, too
    weighing, writing = estimate(problem) * chosen, WRITING * items * lanes * S
    blocks, seen = blocks_of(problem)
    heaviest = max(weighing / (2 * seen), writing / blocks)  # of a block of every item
    numbers = (2 + E) * lanes + S * min(lanes, queries.size)
    state = -(-numbers * real.itemsize // VECTOR_BYTES) * VECTOR_BYTES
    work = weighing + writing
    passes = {"blocks": 3 * blocks, "seen": max(int(work / heaviest), 1), "state": state}
    if problem.score_mod is None:
        run_in_slices(_run.of(real), call, items, work, unknown=True, **passes)
    else:
        _run_modified.run(problem, call, items, work, **passes)


@inlined
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    room, places, (packed, columns, block, own, staged, turned) = reserve(
        real,
        (6, lanes),
        (
            (call.D, lanes), (3, lanes), (SOURCES, lanes), (1, state_size(call)),
            staged_shape(call), turned_shape(call),
        ),
    )  # fmt: skip
    if room == 0:
        return
    tiles = -(-call.num_queries // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        _weigh_tile(
            call, real, pair // call.num_heads, pair % call.num_heads, item % tiles * lanes,
            state_of(call, item, own), places, packed, columns, block, staged, turned, score_mod,
            score_args,
        )  # fmt: skip
    release(room)
    end(calls)


@inlined
def _weigh_tile(
    call, real, b, i, first_row, state, places, packed, columns, room, staged, turned, score_mod,
    score_args,
):  # fmt: skip
    """Write weights, and sums where asked, of chosen targets from ``first_row`` of head i.

    Of a long item only the blocks of this launch are done; they count through the passes: scores
    and their tops, weights and their sums, output.
    """
    cast = type(real)
    lanes, last, S, E = call.lanes, call.num_queries - 1, call.S, call.E
    head = read_int64(call.heads + 8 * i)
    for lane in range(lanes):
        row = lesser(first_row + lane, last)  # spare lanes repeat the last target
        places[HEAD, lane] = head
        places[TARGET, lane] = read_int64(call.queries + 8 * row)
    place(call, b, places)
    pack_queries(call, real, b, 1.0, places, packed)
    g = head // (call.H // call.G)
    value = call.value + b * call.value_b + g * call.value_h
    out = call.out + b * call.out_b + i * call.out_h
    first, past, all_first, all_past = find_span(places)
    # whole blocks: a weight is added to the same partial sum whatever the other lanes see
    begin, stop, blocks = first // SOURCES, -(-past // SOURCES), -(-S // SOURCES)

    step = lanes * call.item
    kept = numbers_at(real, state, (2 + E, lanes))
    top, total, sums = kept[0], kept[1], kept[2:]
    weights = numbers_at(real, state + (2 + E) * step, (S, lesser(lanes, last + 1)))
    narrow = weights.shape[1] < lanes
    base, partial, ones = columns[0], columns[1], columns[2]
    sink = sink_of(call, real, head)
    if call.first_block == 0:
        for lane in range(lanes):
            top[lane] = sink
    for source in range(
        greater(begin, call.first_block) * SOURCES, lesser(stop, call.past_block) * SOURCES, SOURCES
    ):
        rows = lesser(SOURCES, S - source)
        block = room[:rows] if narrow else weights[source : source + rows]
        score_block(
            call, real, b, g, source, rows, places, lanes * call.item,
            all_first <= source and source + rows <= all_past, packed, staged, turned, block,
            1.0, score_mod, score_args,
        )  # fmt: skip
        for offset in range(0, step, VECTOR_BYTES):
            column_tops(real, address(block) + offset, step, rows, address(top) + offset)
        if narrow:
            _keep(weights, source, block)
    for lane in range(lanes):
        ones[lane] = cast(1)
        base[lane] = cast(0) if top[lane] == cast(-np.inf) else top[lane]

    block_before = call.first_block - blocks
    block_past = call.past_block - blocks
    if block_before <= 0 and block_past > 0:
        fill(sums, cast(0))
        for lane in range(lanes):
            total[lane] = exp2((sink - base[lane]) * cast(LOG2E))
    for source in range(
        greater(begin, block_before) * SOURCES, lesser(stop, block_past) * SOURCES, SOURCES
    ):
        rows = lesser(SOURCES, S - source)
        block = room[:rows] if narrow else weights[source : source + rows]
        if narrow:
            _take_up(weights, source, block)
        hides = _weigh_block(real, rows, block, base, partial, total)
        if call.attended != 0:
            _add_values(
                call, real, value + source * call.value_s, rows, hides, block, staged, ones, sums
            )
        if narrow:
            _keep(weights, source, block)

    share = base
    for lane in range(lanes):
        share[lane] = cast(0) if total[lane] == cast(0) else cast(1) / total[lane]
    for source in range(
        greater(block_before - blocks, 0) * SOURCES,
        lesser((block_past - blocks) * SOURCES, S),
        SOURCES,
    ):
        rows = lesser(SOURCES, S - source)
        block = room[:rows] if narrow else weights[source : source + rows]
        factors = share
        if source < begin * SOURCES or source >= stop * SOURCES:
            fill(block, cast(0))
            factors = ones  # a share may be NaN
        elif narrow:
            _take_up(weights, source, block)
        for lane in range(lanes):
            row = lesser(first_row + lane, last)
            places[ROW, lane] = out + row * call.out_t + source * call.out_e
        store_rows(real, call.kind, places[ROW], call.out_e, rows, block, factors)
    if call.attended != 0 and block_past >= 2 * blocks:
        attended = call.attended + b * call.attended_b + i * call.attended_h
        for lane in range(lanes):
            places[ROW, lane] = attended + lesser(first_row + lane, last) * call.attended_t
        store_rows(real, call.kind, places[ROW], call.attended_e, E, sums, share)


@inlined
def _weigh_block(real, rows, block, base, partial, total):
    """Turn a block's scores into weights under each lane's top; say whether any hides."""
    cast = type(real)
    lanes, step = block.shape[1], block.shape[1] * block.itemsize
    hides = False
    for lane in range(lanes):
        partial[lane] = cast(0)
    for s in range(0, rows, SHORT):
        # to powers of two only now: times log2(e) before, a large score would round by more
        hides |= column_weights_scaled(
            real, address(block) + s * step, step, step, lesser(SHORT, rows - s), address(base),
            address(partial), False, cast(LOG2E),
        )  # fmt: skip
    for lane in range(lanes):
        total[lane] += partial[lane]
    return hides


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
            tile[i, lane] = kept[source + i, lesser(lane, kept.shape[1] - 1)]


@inlined
def _add_values(call, real, row, rows, hides, weights, staged, ones, sums):
    """Add the weighted values of a block of sources, the first at ``row``, to the sums."""
    row, row_stride, across = widened(
        real, call.kind, row, call.value_s, call.value_e, rows, call.E, staged
    )
    visible = hides and leaks(real, row, row_stride, across, rows, call.E, call.item)
    step = call.lanes * call.item
    add_values(
        real, visible, row, row_stride, across, rows, call.E, address(weights), address(sums),
        step, step, address(ones),
    )  # fmt: skip
