"""Fused attention: one work item is one tile of targets of one key/value head, all its sources.

Online softmax (Milakov and Gimelshein, arXiv:1805.02867) over blocks of sources, in powers of
two; nothing of size T * S is made. The H / G heads that read one key/value head share its tiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.call import (
    CALL,
    SOURCES,
    blocks_of,
    estimate,
    lanes_for,
    pack,
    spare_lanes,
)
from mhakit.backends.cpu.decoding import TARGETS, prepare_decoding
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import greater, lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, take
from mhakit.backends.cpu.modified import Modified, starting
from mhakit.backends.cpu.prepared import Prepared
from mhakit.backends.cpu.rows import store_rows, widened
from mhakit.backends.cpu.scratch import release, reserve, state_of, state_size
from mhakit.backends.cpu.simd import VECTOR_BYTES, column_bases, column_weights
from mhakit.backends.cpu.tiles import (
    HEAD,
    LOG2E,
    PIECE,
    ROW,
    TARGET,
    fill,
    find_span,
    pack_queries,
    place,
    score_block,
    seen_in,
    sink_of,
    staged_shape,
    turned_shape,
    width_of,
    write_lse,
)
from mhakit.backends.cpu.values import add_values, leaks
from mhakit.problem import Problem

__all__ = ["attend", "prepare"]

_spare_lanes = inlined(spare_lanes)


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


def attend(problem: Problem, out: NDArray[Any], *, wants_lse: bool = True) -> NDArray[Any] | None:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), if wanted."""
    lse = np.empty(problem.query.shape[:3], problem.real) if wants_lse else None
    prepare(problem, out, lse).run()
    return lse


def prepare(problem: Problem, out: NDArray[Any], lse: NDArray[Any] | None = None) -> Prepared:
    """Return a call of `attend` made ready."""
    assert problem.value is not None
    B, H, T, _ = problem.query.shape
    if T <= TARGETS:
        return prepare_decoding(problem, out, lse)
    G, real = problem.key.shape[1], problem.real
    rows = H // G * T
    sinks = None if problem.sinks is None else np.ascontiguousarray(problem.sinks, real)
    record = pack(problem, out, rows=rows, lse=lse, sinks=sinks)
    lanes = lanes_for(rows, real)
    items = B * G * -(-rows // lanes)
    blocks, seen = blocks_of(problem)
    state = (problem.value.shape[3] + 4) * lanes * real.itemsize
    start = starting(problem, _run, _run_modified)
    return Prepared(
        problem, record, start, items, estimate(problem), sinks=sinks, blocks=blocks, seen=seen,
        state=state,
    )  # fmt: skip


@inlined
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes = call.lanes
    room, places, (packed, weights, own, staged, turned) = reserve(
        real,
        (6, lanes),
        (
            (call.D, lanes), (SOURCES, lanes), (1, state_size(call)), staged_shape(call),
            turned_shape(call),
        ),
    )  # fmt: skip
    if room == 0:
        return
    rows = call.H // call.G * call.T
    tiles, spare = -(-rows // lanes), _spare_lanes(rows, lanes, VECTOR_BYTES // call.item)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        # the last tiles see most where attention is causal, and have most to do while a head's
        # first keys and values are waited for: they come first
        tile = tiles - 1 - item % tiles
        pair = item // tiles
        kept = state_of(call, item, own)
        _attend_tile(
            call, real, pair // call.G, pair % call.G, tile * lanes - spare, places, packed,
            weights, kept, staged, turned, score_mod, score_args,
        )  # fmt: skip
    release(room)
    end(calls)


@inlined
def _attend_tile(
    call, real, b, g, first_row, places, packed, weights, kept, staged, turned, score_mod,
    score_args,
):  # fmt: skip
    """Write output and lse of the targets [first_row, first_row + lanes) of one key/value head.

    The first tile, which begins before the first target, is as narrow as its targets allow. Of a
    long item only the blocks of this launch are done; ``kept`` is its state.
    """
    T, E = call.T, call.E
    ratio = call.H // call.G
    past_row = lesser(first_row + call.lanes, ratio * T)
    first_row = greater(first_row, 0)
    used = past_row - first_row
    width = width_of(call, used)
    register = VECTOR_BYTES // call.item
    lanes = -(-used // register) * register
    places = numbers_at(lanes, address(places), (places.shape[0], lanes))
    packed = numbers_at(real, address(packed), (call.D, lanes))
    weights = numbers_at(real, address(weights), (SOURCES, lanes))
    turned = numbers_at(real, address(turned), (turned.shape[0], lanes))
    line = lanes * call.item
    carry, base = numbers_at(real, kept, lanes), numbers_at(real, kept + line, lanes)
    top, total = numbers_at(real, kept + 2 * line, lanes), numbers_at(real, kept + 3 * line, lanes)
    sums = numbers_at(real, kept + 4 * line, (E, lanes))
    h, t = g * ratio + first_row // T, first_row % T
    for lane in range(lanes):
        places[HEAD, lane], places[TARGET, lane] = h, t
        if lane + 1 < used:  # spare lanes repeat the last target
            t += 1
            if t == T:
                h, t = h + 1, 0
    place(call, b, places)
    pack_queries(call, real, b, LOG2E, places, packed)

    if call.first_block == 0:
        _start(call, real, places, top, total, sums)
    first, past, all_first, all_past = find_span(places)
    value = call.value + b * call.value_b + g * call.value_h
    step = lanes * weights.itemsize
    begin = greater(first // SOURCES, call.first_block)
    stop = lesser(-(-past // SOURCES), call.past_block)
    for block in range(begin, stop):
        source = greater(block * SOURCES, first)
        rows = lesser((block + 1) * SOURCES, past) - source
        spared = all_first <= source and source + rows <= all_past
        score_block(
            call, real, b, g, source, rows, places, width, spared, packed, staged, turned, weights,
            LOG2E, score_mod, score_args,
        )  # fmt: skip
        hides = _weigh(real, rows, weights, top, carry, base, total)
        row, row_stride, across = widened(
            real, call.kind, value + source * call.value_s, call.value_s, call.value_e, rows, E,
            staged,
        )  # fmt: skip
        visible = hides and leaks(real, row, row_stride, across, rows, E, call.item)
        whole = spared or not hides
        piece = width if whole else PIECE
        for offset in range(0, width, piece):
            size, low, high = lesser(piece, width - offset), 0, rows
            if not whole:
                low, high = seen_in(places, source, rows, offset, size, call.item)
            add_values(
                real, visible, row + low * row_stride, row_stride, across, high - low, E,
                address(weights) + low * step + offset, address(sums) + offset, step, size,
                address(carry) + offset,
            )  # fmt: skip
    if call.past_block * SOURCES >= call.S:
        _repeat_last(used, top, total, sums)
        _finish(call, real, b, places, top, total, sums)


@inlined
def _start(call, real, places, top, total, sums):
    """Begin with nothing seen, or with the sink, whose logit has weight and no value."""
    cast = type(real)
    fill(sums, cast(0))
    for lane in range(top.size):
        sink = sink_of(call, real, places[HEAD, lane])
        top[lane] = sink * cast(LOG2E)
        total[lane] = cast(0) if sink == cast(-np.inf) else cast(1)


@inlined
def _weigh(real, rows, weights, top, carry, base, total):
    """Turn a block's scores into weights under the new top of each lane; say whether any hides."""
    step = weights.shape[1] * weights.itemsize
    plain = column_bases(
        real, address(weights), step, step, rows, address(top), address(base), address(carry),
        address(total),
    )  # fmt: skip
    return column_weights(
        real, address(weights), step, step, rows, address(base), address(total), plain, real
    )


@inlined
def _repeat_last(used, top, total, sums):
    """Let spare lanes, which no product did, hold what the last target's lane holds."""
    for lane in range(used, top.size):
        top[lane], total[lane] = top[used - 1], total[used - 1]
        for e in range(sums.shape[0]):
            sums[e, lane] = sums[e, used - 1]


@inlined
def _finish(call, real, b, places, top, total, sums):
    """Divide by each lane's sum and write rows of the output; a lane that saw nothing is 0."""
    cast = type(real)
    for lane in range(top.size):
        h, t = places[HEAD, lane], places[TARGET, lane]
        write_lse(call, real, b, h, t, top[lane], total[lane])
        dead = total[lane] == cast(0)
        total[lane] = cast(0) if dead else cast(1) / total[lane]
        places[ROW, lane] = call.out + b * call.out_b + h * call.out_h + t * call.out_t
    store_rows(real, call.kind, places[ROW], call.out_e, call.E, sums, total)
