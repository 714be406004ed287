"""Attention of few targets: one work item is one segment of sources of one key/value head.

Bound by reading key and value once, so registers hold a row's width and threads share the
sources. Each segment leaves its top, its sum and its weighted values; they are merged in order.
Segments have a fixed length, counted from source 0: bits depend on no split and no thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from mhakit.backends.cpu.call import SOURCES, estimate, pack
from mhakit.backends.cpu.flags import inlined, part
from mhakit.backends.cpu.launch import Kernel
from mhakit.backends.cpu.memory import FLOAT16, address, fetch_add, read, write
from mhakit.backends.cpu.rows import widen_rows
from mhakit.backends.cpu.score_mod import compiled
from mhakit.backends.cpu.simd import (
    VECTOR_BYTES,
    add_weighted_rows,
    column_tops,
    column_weights,
    dot_rows,
    exp2,
)
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.tiles import (
    HEAD,
    LOG2E,
    TARGET,
    aligned,
    change_scores,
    fill,
    find_span,
    place,
    places_of,
    sink_of,
    write_lse,
)
from mhakit.problem import Problem

__all__ = ["SEGMENT", "TARGETS", "decode"]

TARGETS = 4
"""Calls of so many targets or fewer are decoded."""

SEGMENT = 512
"""Sources in one segment, a whole number of blocks."""


def _decode(calls, real, partials, score_mod, score_args):
    """Write partials[pair, segment, row] of work items [counter, stop), one worker a thread."""
    for _ in prange(calls[0].workers):
        _work(calls, real, partials, score_mod, score_args)


def _merge(calls, real, partials):
    """Write output and lse of every row from its segments, in order."""
    for pair in prange(calls[0].B * calls[0].G):
        for row in range(partials.shape[2]):
            _merge_row(calls[0], real, pair, row, partials)


_run = Kernel(_decode)
_run_modified = Kernel(_decode, cached=False)  # a user's function is compiled in
_run_merge = Kernel(_merge)


def decode(problem: Problem, out: NDArray[Any]) -> NDArray[Any]:
    """Write attention's output, (B, H, T, E), to ``out`` and return lse, (B, H, T)."""
    assert problem.value is not None
    B, H, T, _ = problem.query.shape
    G, S = problem.key.shape[1:3]
    E, real = problem.value.shape[3], problem.real
    lse = np.empty((B, H, T), real)
    sinks = None if problem.sinks is None else np.ascontiguousarray(problem.sinks, real)
    call = pack(problem, out, rows=H // G * T, lse=lse, sinks=sinks)
    segments = -(-S // SEGMENT)
    partials = np.empty((B * G, segments, H // G * T, E + 2), real)
    score_mod = compiled(problem)
    kernel = _run if score_mod is None else _run_modified
    work = estimate(problem)
    run_in_slices(
        kernel, call, B * G * segments, work, real.type(1), partials, score_mod, problem.score_args
    )
    _run_merge(call, real.type(1), partials, work=1.0 * partials.size)
    return lse


@part
def _work(calls, real, partials, score_mod, score_args):
    """Take work items until none is left, with scratch made once."""
    call = calls[0]
    rows = call.H // call.G * call.T
    registers = VECTOR_BYTES // call.item
    wide_d = -(-call.D // registers) * registers
    wide_e = -(-call.E // registers) * registers
    query, sums = aligned(real, rows, wide_d), aligned(real, rows, wide_e)
    scores, totals = aligned(real, rows, SOURCES), aligned(real, rows, registers)
    columns, tops = aligned(real, 2, registers), aligned(real, 1, rows)
    staged = aligned(real, SOURCES, max(wide_d, wide_e))
    turned, changed = aligned(real, SOURCES, rows), aligned(real, SOURCES, rows)
    places = places_of(rows)
    segments = partials.shape[1]
    while True:
        item = fetch_add(address(calls), 1)
        if item >= call.stop:
            break
        pair, segment = item // segments, item % segments
        b, g = pair // call.G, pair % call.G
        for row in range(rows):
            places[HEAD, row] = g * (call.H // call.G) + row // call.T
            places[TARGET, row] = row % call.T
            tops[0, row] = type(real)(-np.inf)
        place(call, b, places)
        _lay_queries(call, real, b, places, query)
        fill(totals, type(real)(0))
        fill(sums, type(real)(0))
        first, past, all_first, all_past = find_span(places)
        end = min((segment + 1) * SEGMENT, call.S)
        for source in range(segment * SEGMENT, end, SOURCES):
            count = min(SOURCES, end - source)
            if first < source + count and source < past:
                _attend_block(
                    call, real, b, g, source, count, places,
                    all_first <= source and source + count <= all_past, query, scores, changed,
                    turned, staged, columns, tops, totals, sums, score_mod, score_args,
                )  # fmt: skip
        for row in range(rows):
            total = totals[row, 0]
            for lane in range(1, registers):
                total += totals[row, lane]
            partials[pair, segment, row, 0] = tops[0, row]
            partials[pair, segment, row, 1] = total
            for e in range(call.E):
                partials[pair, segment, row, 2 + e] = sums[row, e]


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
    registers = VECTOR_BYTES // call.item
    if call.kind < FLOAT16 and step == call.item and width == wide and count % registers == 0:
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
    for i in range(count, staged.shape[0]):
        for j in range(wide):
            staged[i, j] = cast(0)
    return address(staged), np.int64(staged.strides[0])


@inlined
def _attend_block(
    call, real, b, g, source, count, places, spared, query, scores, changed, turned, staged,
    columns, tops, totals, sums, score_mod, score_args,
):  # fmt: skip
    """Take one block of sources into the tops, totals and sums of every row."""
    cast = type(real)
    rows, registers = query.shape[0], columns.shape[1]
    key = call.key + b * call.key_b + g * call.key_h + source * call.key_s
    key, stride = _stage(
        call, real, key, call.key_s, call.key_d, count, call.D, query.shape[1], staged
    )
    whole = -(-count // registers) * registers
    for row in range(rows):
        dot_rows(
            real, key, stride, whole, address(query) + row * query.strides[0],
            np.int64(query.strides[0]), address(scores) + row * scores.strides[0],
        )  # fmt: skip
    if call.reshaped != 0 or call.mask != 0 or not spared:
        for row in range(rows):
            for i in range(count):
                changed[i, row] = scores[row, i]
        change_scores(
            call,
            real,
            b,
            source,
            count,
            places,
            spared,
            turned,
            changed,
            LOG2E,
            score_mod,
            score_args,
        )
        for row in range(rows):
            for i in range(count):
                scores[row, i] = changed[i, row]
    for row in range(rows):
        for i in range(count, whole):
            scores[row, i] = cast(-np.inf)
    value = call.value + b * call.value_b + g * call.value_h + source * call.value_s
    value, stride = _stage(
        call, real, value, call.value_s, call.value_e, count, call.E, sums.shape[1], staged
    )
    for row in range(rows):
        carry = _weigh_row(real, row, whole, scores, columns, tops, totals)
        add_weighted_rows(
            real, value, stride, count, address(scores) + row * scores.strides[0],
            np.int64(sums.strides[0]), address(sums) + row * sums.strides[0], carry,
        )  # fmt: skip


@inlined
def _weigh_row(real, row, whole, scores, columns, tops, totals):
    """Turn one row's scores into weights under its new top; return what the old ones shrink by."""
    cast = type(real)
    registers, step = columns.shape[1], np.int64(columns.strides[0])
    line = address(scores) + row * scores.strides[0]
    for lane in range(registers):
        columns[0, lane] = tops[0, row]
    column_tops(real, line, step, whole // registers, address(columns))
    top = columns[0, 0]
    for lane in range(1, registers):
        top = max(top, columns[0, lane])
    base = cast(0) if top == cast(-np.inf) else top
    carry = exp2(tops[0, row] - base)
    tops[0, row] = top
    for lane in range(registers):
        columns[1, lane] = base
        totals[row, lane] *= carry
    sums = address(totals) + row * totals.strides[0]
    column_weights(real, line, step, whole // registers, address(columns) + step, sums)
    return carry


@inlined
def _merge_row(call, real, pair, row, partials):
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
    scale = cast(0) if total == cast(0) else cast(1) / total
    first = call.out + b * call.out_b + h * call.out_h + t * call.out_t
    for e in range(call.E):
        merged = cast(0)
        for segment in range(partials.shape[1]):
            merged += partials[pair, segment, row, 0] * partials[pair, segment, row, 2 + e]
        write(call.kind, first + e * call.out_e, merged * scale)
    write_lse(call, real, b, h, t, top, total)
