"""Attention of few targets: one work item is one segment of sources of one key/value head.

Bound by reading key and value once, so registers hold a row's width and threads share the
sources. Each segment leaves its top, its sum and its weighted values; whoever ends the last one
of a head merges them in order. Segments have a fixed length, counted from source 0: bits depend on
no split and no thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.call import CALL, SOURCES, estimate, pack
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import greater, lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, fetch_add, read, take
from mhakit.backends.cpu.modified import Modified, starting
from mhakit.backends.cpu.prepared import Prepared
from mhakit.backends.cpu.rows import store_row, widen_rows
from mhakit.backends.cpu.scratch import release, reserve
from mhakit.backends.cpu.simd import (
    VECTOR_BYTES,
    add_weighted_rows,
    dot_rows,
    exp2,
    line_top,
    line_weights,
)
from mhakit.backends.cpu.storage import FLOAT16
from mhakit.backends.cpu.tiles import (
    HEAD,
    LOG2E,
    TARGET,
    change_scores,
    fill,
    find_span,
    place,
    sink_of,
    write_lse,
)
from mhakit.problem import Problem

__all__ = ["SEGMENT", "TARGETS", "prepare_decoding"]

TARGETS = 4
"""Calls of so many targets or fewer are decoded."""

SEGMENT = 512
"""Sources in one segment, a whole number of blocks."""

NEAR = 16
"""Rows of value that stay in the nearest cache while every target takes them."""


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


def prepare_decoding(problem: Problem, out: NDArray[Any], lse: NDArray[Any] | None) -> Prepared:
    """Return a call made ready that writes output and, where it is asked for, lse."""
    assert problem.value is not None
    B, H, T, _ = problem.query.shape
    G, S = problem.key.shape[1:3]
    E, real = problem.value.shape[3], problem.real
    sinks = None if problem.sinks is None else np.ascontiguousarray(problem.sinks, real)
    segments, rows = max(-(-S // SEGMENT), 1), H // G * T
    record = pack(problem, out, rows=rows, lse=lse, sinks=sinks)
    start = starting(problem, _run, _run_modified)
    return Prepared(
        problem, record, start, B * G * segments, estimate(problem), sinks=sinks,
        parts=(B * G, segments, rows, E + 2),
    )  # fmt: skip


@inlined
def _work(calls, real, score_mod, score_args):
    """Take work items until none is left, with scratch made once."""
    call = calls[0]
    rows = call.H // call.G * call.T
    registers = VECTOR_BYTES // call.item
    wide_d = -(-call.D // registers) * registers
    wide_e = -(-call.E // registers) * registers
    room, places, (query, sums, scores, staged, turned, changed) = reserve(
        real,
        (6, rows),
        (
            (rows, wide_d), (rows, wide_e), (rows, SEGMENT), (SOURCES, greater(wide_d, wide_e)),
            (SEGMENT, rows), (SEGMENT, rows),
        ),
    )  # fmt: skip
    if room == 0:
        return
    segments = greater(-(-call.S // SEGMENT), 1)
    partials = numbers_at(real, call.partials, (call.B * call.G, segments, rows, call.E + 2))
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair, segment = item // segments, item % segments
        b, g = pair // call.G, pair % call.G
        for row in range(rows):
            places[HEAD, row] = g * (call.H // call.G) + row // call.T
            places[TARGET, row] = row % call.T
        place(call, b, places)
        first, past, all_first, all_past = find_span(places)
        # whole blocks: a weight lands in the same lane of a sum whatever else is seen
        begin = greater(segment * SEGMENT, first // SOURCES * SOURCES)
        stop = lesser(lesser((segment + 1) * SEGMENT, call.S), -(-past // SOURCES) * SOURCES)
        count = greater(stop - begin, 0)
        _lay_queries(call, real, b, places, query)
        _score_rows(call, real, b, g, begin, count, query, scores, staged)
        if call.reshaped != 0 or call.mask != 0 or not (all_first <= begin and stop <= all_past):
            _change_rows(
                call, real, b, begin, count, places, all_first <= begin and stop <= all_past,
                turned, changed, scores, score_mod, score_args,
            )  # fmt: skip
        for row in range(rows):
            _weigh_row(real, row, count, scores, registers, sums, partials[pair, segment, row])
        fill(sums, type(real)(0))
        _sum_rows(call, real, b, g, begin, count, scores, sums, staged)
        for row in range(rows):
            for e in range(call.E):
                partials[pair, segment, row, 2 + e] = sums[row, e]
        if fetch_add(call.pairs + 8 * pair, 1) == segments - 1:
            for row in range(rows):
                _merge_row(call, real, pair, row, partials, sums[row])
    release(room)
    end(calls)


@inlined
def _lay_queries(call, real, b, places, query):
    """Write each row's query times the scale, 0 beyond D."""
    cast = type(real)
    factor = cast(call.scale) if call.reshaped else cast(call.scale * LOG2E)
    for row in range(query.shape[0]):
        first = call.query + b * call.query_b
        first += places[HEAD, row] * call.query_h + places[TARGET, row] * call.query_t
        for d in range(call.D):
            query[row, d] = read(real, call.kind, first + d * call.query_d) * factor
        for d in range(call.D, query.shape[1]):
            query[row, d] = cast(0)


@inlined
def _stage(call, real, first, stride, step, count, width, wide, staged):
    """Return address and stride of rows that registers can be loaded from, copied if need be."""
    cast = type(real)
    if call.kind < FLOAT16 and step == call.item and width == wide:
        return first, stride
    if call.kind >= FLOAT16:
        widen_rows(real, call.kind, first, stride, step, count, width, staged)
    else:
        for i in range(count):
            for j in range(width):
                staged[i, j] = read(real, call.kind, first + i * stride + j * step)
    for i in range(count):
        for j in range(width, wide):
            staged[i, j] = cast(0)
    return address(staged), np.int64(staged.strides[0])


@inlined
def _score_rows(call, real, b, g, begin, count, query, scores, staged):
    """Write the bare scores of every row and sources [begin, begin + count)."""
    keys = call.key + b * call.key_b + g * call.key_h + begin * call.key_s
    width, line = np.int64(query.strides[0]), np.int64(scores.strides[0])
    for i in range(0, count, SOURCES):
        some = lesser(SOURCES, count - i)
        key, stride = _stage(
            call, real, keys + i * call.key_s, call.key_s, call.key_d, some, call.D,
            query.shape[1], staged,
        )  # fmt: skip
        dot_rows(
            real, key, stride, some, address(query), width, query.shape[0], width,
            address(scores) + i * scores.itemsize, line,
        )  # fmt: skip


@inlined
def _change_rows(
    call, real, b, begin, count, places, spared, turned, changed, scores, score_mod, score_args
):
    """Change bare scores in place as the call asks, by way of a tile of (sources, rows)."""
    for row in range(scores.shape[0]):
        for i in range(count):
            changed[i, row] = scores[row, i]
    change_scores(
        call, real, b, begin, count, places, spared, turned, changed, LOG2E, score_mod, score_args
    )
    for row in range(scores.shape[0]):
        for i in range(count):
            scores[row, i] = changed[i, row]


@inlined
def _weigh_row(real, row, count, scores, registers, sums, partial):
    """Turn one row's scores into weights; leave its top and its sum in ``partial``."""
    cast = type(real)
    whole = -(-count // registers)
    for i in range(count, whole * registers):
        scores[row, i] = cast(-np.inf)
    line = address(scores) + row * scores.strides[0]
    top = line_top(real, line, whole)
    base = cast(0) if top == cast(-np.inf) else top
    for lane in range(registers):
        sums[0, lane] = cast(0)
    partial[0] = top
    partial[1] = line_weights(real, line, whole, base, cast(1), address(sums))


@inlined
def _sum_rows(call, real, b, g, begin, count, scores, sums, staged):
    """Add the weighted values of sources [begin, begin + count) to the sums of every row."""
    values = call.value + b * call.value_b + g * call.value_h + begin * call.value_s
    width, line = np.int64(sums.strides[0]), np.int64(scores.strides[0])
    for i in range(0, count, SOURCES):
        some = lesser(SOURCES, count - i)
        value, stride = _stage(
            call, real, values + i * call.value_s, call.value_s, call.value_e, some, call.E,
            sums.shape[1], staged,
        )  # fmt: skip
        for j in range(0, some, NEAR):
            add_weighted_rows(
                real, value + j * stride, stride, lesser(NEAR, some - j),
                address(scores) + (i + j) * scores.itemsize, line, sums.shape[0], width,
                address(sums), width,
            )  # fmt: skip


@inlined
def _merge_row(call, real, pair, row, partials, merged):
    """Write one row of output and lse; one that saw nothing is 0."""
    cast = type(real)
    nothing = cast(-np.inf)
    b, g = pair // call.G, pair % call.G
    h, t = g * (call.H // call.G) + row // call.T, row % call.T
    sink = sink_of(call, real, h)
    top = sink * cast(LOG2E)
    for segment in range(partials.shape[1]):
        larger = partials[pair, segment, row, 0]
        top = larger if larger > top else top
    base = cast(0) if top == nothing else top
    total = exp2(sink * cast(LOG2E) - base)
    for segment in range(partials.shape[1]):
        share = exp2(partials[pair, segment, row, 0] - base)
        partials[pair, segment, row, 0] = share
        total += partials[pair, segment, row, 1] * share
    for e in range(call.E):
        merged[e] = cast(0)
    for segment in range(partials.shape[1]):
        share = partials[pair, segment, row, 0]
        for e in range(call.E):
            merged[e] += share * partials[pair, segment, row, 2 + e]
    scale = cast(0) if total == cast(0) else cast(1) / total
    first = call.out + b * call.out_b + h * call.out_h + t * call.out_t
    store_row(real, call.kind, first, call.out_e, call.E, merged, scale)
    write_lse(call, real, b, h, t, top, total)
