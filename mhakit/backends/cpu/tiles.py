"""One tile: up to four registers of targets against a block of sources, scores transposed.

A tile's targets ride in the lanes. `place` says which sources each lane's target sees,
`pack_queries` lays the queries out as (D, lanes), and `score_block` writes the scores of a block of
sources, (sources, lanes), with every change the call asks for.
"""

from __future__ import annotations

import numpy as np

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.memory import FLOAT16, address, read, read_bool, read_int64, widen_rows
from mhakit.backends.cpu.simd import VECTOR_BYTES, align, multiply, tanh
from mhakit.backends.steps import first_visible, past_visible

__all__ = ["LOG2E", "aligned", "fill", "find_span", "pack_queries", "place", "score_block"]

LOG2E = 1.4426950408889634074


@inlined
def aligned(real, rows, lanes):
    """Allocate a (rows, lanes) tile whose address a register can be loaded from."""
    buffer = np.empty(rows * lanes + VECTOR_BYTES // 4, dtype=type(real))
    start = (align(address(buffer)) - address(buffer)) // buffer.itemsize
    return buffer[start : start + rows * lanes].reshape(rows, lanes)


@inlined
def fill(tile, value):
    """Write ``value`` everywhere: Numba's ``tile[:] = value`` compiles a second of messages."""
    for i in range(tile.shape[0]):
        for lane in range(tile.shape[1]):
            tile[i, lane] = value


@inlined
def place(call, b, targets, position, low, high):
    """Write where each lane's target sits, and the sources low <= s < high that its band shows."""
    offset = read_int64(call.offsets + 8 * b)
    length = read_int64(call.lengths + 8 * b)
    for lane in range(call.lanes):
        position[lane] = targets[lane] + offset
        low[lane] = first_visible(position[lane], call.left)
        high[lane] = past_visible(position[lane], call.right, length)


@inlined
def find_span(low, high):
    """Return the sources that some lane sees, and those that every lane sees, as ranges."""
    first, past = np.int64(2**62), np.int64(0)
    all_first, all_past = np.int64(0), np.int64(2**62)
    for lane in range(low.size):
        if low[lane] < high[lane]:
            first = min(first, low[lane])
            past = max(past, high[lane])
        all_first = max(all_first, low[lane])
        all_past = min(all_past, high[lane])
    return min(first, past), past, all_first, all_past


@inlined
def pack_queries(call, real, b, heads, targets, unit, packed):
    """Write each lane's query, times the scale, to a column of ``packed``, (D, lanes)."""
    cast = type(real)
    factor = cast(call.scale) if call.reshaped else cast(call.scale * unit)
    D, kind, step = call.D, call.kind, call.query_d
    for lane in range(call.lanes):
        row = (
            call.query
            + b * call.query_b
            + heads[lane] * call.query_h
            + targets[lane] * call.query_t
        )
        for d in range(D):
            packed[d, lane] = read(real, kind, row + d * step) * factor


@inlined
def score_block(
    call, real, b, g, source, rows, heads, targets, position, low, high, spared, packed, staged,
    scores, unit, score_mod, score_args,
):  # fmt: skip
    """Write the scores of sources [source, source + rows) times ``unit`` to ``scores``.

    Hidden ones are -inf. ``spared`` says that every lane's band shows all of these sources.
    """
    cast = type(real)
    lanes, D = call.lanes, call.D
    row = call.key + b * call.key_b + g * call.key_h + source * call.key_s
    row_stride, step = call.key_s, call.key_d
    if call.kind >= FLOAT16:
        widen_rows(real, call.kind, row, row_stride, step, rows, D, staged)
        row, row_stride, step = address(staged), staged.strides[0], np.int64(staged.itemsize)
    multiply(
        real, row, row_stride, step, address(packed), address(scores), lanes * scores.itemsize,
        rows, D, np.int64(0),
    )  # fmt: skip
    if call.softcap > 0:
        _cap(cast(call.softcap), rows, scores)
    if call.bias:
        _add_bias(call, real, b, source, rows, heads, targets, scores)
    if score_mod is not None:
        for i in range(rows):
            s = source + i
            for lane in range(lanes):
                given = scores[i, lane]
                changed = cast(score_mod(given, b, heads[lane], position[lane], s, *score_args))
                scores[i, lane] = given if given == cast(-np.inf) else changed
    if call.reshaped and unit != 1.0:
        factor = cast(unit)
        for i in range(rows):
            for lane in range(lanes):
                scores[i, lane] *= factor
    if not spared:
        _hide_band(source, rows, low, high, scores)
    if call.mask:
        _hide_mask(call, b, source, rows, heads, targets, scores)


@inlined
def _cap(cap, rows, scores):
    for i in range(rows):
        for lane in range(scores.shape[1]):
            scores[i, lane] = cap * tanh(scores[i, lane] / cap)


@inlined
def _add_bias(call, real, b, source, rows, heads, targets, scores):
    kind, step = call.bias_kind, call.bias_s
    for lane in range(scores.shape[1]):
        row = call.bias + b * call.bias_b + heads[lane] * call.bias_h + targets[lane] * call.bias_t
        row += source * step
        for i in range(rows):
            added = read(real, kind, row + i * step)
            hides = added == type(real)(-np.inf)  # whatever the score is, NaN too
            scores[i, lane] = added if hides else scores[i, lane] + added


@inlined
def _hide_band(source, rows, low, high, scores):
    hidden = type(scores[0, 0])(-np.inf)
    for i in range(rows):
        s = source + i
        for lane in range(scores.shape[1]):
            if s < low[lane] or s >= high[lane]:
                scores[i, lane] = hidden


@inlined
def _hide_mask(call, b, source, rows, heads, targets, scores):
    hidden = type(scores[0, 0])(-np.inf)
    step = call.mask_s
    for lane in range(scores.shape[1]):
        row = call.mask + b * call.mask_b + heads[lane] * call.mask_h + targets[lane] * call.mask_t
        row += source * step
        for i in range(rows):
            if not read_bool(row + i * step):
                scores[i, lane] = hidden
