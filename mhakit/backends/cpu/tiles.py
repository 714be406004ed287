"""One tile: a few registers of targets against a block of sources, scores transposed.

A tile's targets ride in the lanes. `place` says which sources each lane's target sees,
`pack_queries` lays the queries out as (D, lanes), and `score_block` writes the scores of a block
of sources, (sources, lanes), with every change the call asks for.
"""

from __future__ import annotations

import numpy as np

from mhakit.backends import steps
from mhakit.backends.cpu.call import SOURCES
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import greater, lesser
from mhakit.backends.cpu.memory import address, read, read_int64, write
from mhakit.backends.cpu.rows import beside, load_rows, widened
from mhakit.backends.cpu.score_mod import modify
from mhakit.backends.cpu.simd import COLUMN, LEAST_BYTES, VECTOR_BYTES, multiply, tanh
from mhakit.backends.cpu.storage import BOOL, FLOAT16, FLOAT32, FLOAT64

__all__ = [
    "HEAD",
    "HIGH",
    "LOG2E",
    "LOW",
    "PIECE",
    "POSITION",
    "ROW",
    "TARGET",
    "change_scores",
    "fill",
    "find_span",
    "pack_queries",
    "place",
    "score_block",
    "seen_in",
    "sink_of",
    "staged_shape",
    "turned_shape",
    "width_of",
    "write_lse",
]

LOG2E = 1.4426950408889634074
LN2 = 0.6931471805599453094

HEAD, TARGET, POSITION, LOW, HIGH, ROW = range(6)
"""Rows of ``places``, whose columns are lanes: which query head and target a lane carries, the
target's source position, the sources LOW <= s < HIGH that its band shows, and an address."""

first_visible, past_visible = inlined(steps.first_visible), inlined(steps.past_visible)

PIECE = VECTOR_BYTES if VECTOR_BYTES == 64 else COLUMN * VECTOR_BYTES
"""Bytes of a row whose lanes are given the same sources by the products of a border block."""


@inlined
def staged_shape(call):
    """Return the tile for 16-bit rows widened, which not every call needs."""
    return SOURCES, greater(call.D, call.E) if call.kind >= FLOAT16 else 0


@inlined
def turned_shape(call):
    """Return the tile for a bias or a mask turned, which not every call needs."""
    return SOURCES if call.bias != 0 or call.mask != 0 else 0, call.lanes


@inlined
def width_of(call, lanes):
    """Return the bytes of a row that a product must do for so many lanes."""
    return -(-lanes * call.item // LEAST_BYTES) * LEAST_BYTES


@inlined
def fill(tile, value):
    """Write ``value`` everywhere: Numba's ``tile[:] = value`` compiles a second of messages."""
    for i in range(tile.shape[0]):
        for lane in range(tile.shape[1]):
            tile[i, lane] = value


@inlined
def place(call, b, places):
    """Write where each lane's target sits and the sources that its band shows."""
    offset = read_int64(call.offsets + 8 * b)
    length = read_int64(call.lengths + 8 * b)
    for lane in range(places.shape[1]):
        position = places[TARGET, lane] + offset
        places[POSITION, lane] = position
        places[LOW, lane] = first_visible(position, call.left)
        places[HIGH, lane] = past_visible(position, call.right, length)


@inlined
def find_span(places):
    """Return the sources that some lane sees, and those that every lane sees, as ranges."""
    first, past = np.int64(2**62), np.int64(0)
    all_first, all_past = np.int64(0), np.int64(2**62)
    for lane in range(places.shape[1]):
        low, high = places[LOW, lane], places[HIGH, lane]
        if low < high:
            first = lesser(first, low)
            past = greater(past, high)
        all_first = greater(all_first, low)
        all_past = lesser(all_past, high)
    return lesser(first, past), past, all_first, all_past


@inlined
def seen_in(places, source, rows, offset, size, item):
    """Return which of a block's rows some lane's band shows, of the lanes in a piece of a tile.

    The piece is ``size`` bytes of a row, ``offset`` bytes into it; its rows go by eights.
    """
    low, high = rows, 0
    for lane in range(offset // item, lesser((offset + size) // item, places.shape[1])):
        first, past = places[LOW, lane] - source, places[HIGH, lane] - source
        if first < past:
            low = lesser(low, first)
            high = greater(high, past)
    low, high = greater(low, 0) // 8 * 8, lesser(-(-high // 8) * 8, rows)
    return low, greater(high, low)


@inlined
def sink_of(call, real, h):
    """Return a head's sink, -inf where there are none."""
    if call.sinks == 0:
        return type(real)(-np.inf)
    return read(real, FLOAT32 if call.item == 4 else FLOAT64, call.sinks + h * call.item)


@inlined
def write_lse(call, real, b, h, t, top, total):
    """Write the natural log of a row's sum, ``total`` times two to the ``top``, where asked."""
    if call.lse == 0:
        return
    cast = type(real)
    lse = (top + np.log2(total)) * cast(LN2)
    sink = sink_of(call, real, h)
    if total == cast(1) and call.sinks != 0 and top == sink * cast(LOG2E):
        lse = sink  # nothing but the sink was seen: its logit as it came
    if total == cast(0):
        lse = cast(-np.inf)
    place = call.lse + ((b * call.H + h) * call.T + t) * call.item
    write(FLOAT32 if call.item == 4 else FLOAT64, place, lse)


@inlined
def pack_queries(call, real, b, unit, places, packed):
    """Write each lane's query, times the scale, to a column of ``packed``, (D, lanes)."""
    cast = type(real)
    factor = cast(call.scale) if call.reshaped else cast(call.scale * unit)
    batch = call.query + b * call.query_b
    for lane in range(packed.shape[1]):
        h, t = places[HEAD, lane], places[TARGET, lane]
        places[ROW, lane] = batch + h * call.query_h + t * call.query_t
    load_rows(real, call.kind, places[ROW], call.query_d, call.D, packed, factor)


@inlined
def score_block(
    call, real, b, g, source, rows, places, width, spared, packed, staged, turned, scores, unit,
    score_mod, score_args,
):  # fmt: skip
    """Write the scores of sources [source, source + rows) times ``unit`` to ``scores``.

    Hidden ones are -inf. ``width`` is the bytes of a row that are lanes in use; ``spared`` says
    that every lane's band shows all of these sources.
    """
    D = call.D
    row = call.key + b * call.key_b + g * call.key_h + source * call.key_s
    row, row_stride, step = widened(real, call.kind, row, call.key_s, call.key_d, rows, D, staged)
    # a user's function is given true scores, hidden ones too
    whole = spared or score_mod is not None
    piece = width if whole else PIECE
    ahead = _following(call, b, g, source, rows, whole)
    for offset in range(0, width, piece):
        size, low, high = lesser(piece, width - offset), 0, rows
        if not whole:
            low, high = seen_in(places, source, rows, offset, size, call.item)
        place = address(scores) + low * scores.strides[0] + offset
        multiply(
            real, row + low * row_stride, row_stride, step, address(packed) + offset, place,
            scores.strides[0], size, high - low, D, np.int64(0), ahead,
        )  # fmt: skip
    change_scores(
        call, real, b, source, rows, places, spared, turned, scores, unit, score_mod, score_args
    )


@inlined
def _following(call, b, g, source, rows, whole):
    """Return the next rows that a tile reads, these sources' values and the next ones' keys.

    As `multiply` takes them; after the last sources come the first, for another tile. A border
    block, whose tile is done in pieces and not ``whole``, asks for nothing: that gained nothing.
    """
    following = source + rows if source + rows < call.S else 0
    key = call.key + b * call.key_b + g * call.key_h + following * call.key_s
    value = call.value + b * call.value_b + g * call.value_h + source * call.value_s
    keys = whole and beside(call.kind, call.item, call.key_d)
    values = whole and beside(call.kind, call.item, call.value_e)
    key_size = call.D * call.key_d if keys else 0
    value_size = call.E * call.value_e if values else 0
    return (key, call.key_s, key_size), (value, call.value_s, value_size)


@inlined
def change_scores(
    call, real, b, source, rows, places, spared, turned, scores, unit, score_mod, score_args
):
    """Change bare scores, (sources, lanes), in place as the call asks: softcap, bias, mod, mask."""
    cast = type(real)
    lanes = scores.shape[1]
    if call.softcap > 0:
        _cap(cast(call.softcap), rows, scores)
    if call.bias != 0:
        _add_bias(call, real, b, source, rows, places, turned, scores)
    if score_mod is not None:
        modify(
            b, places[HEAD], places[POSITION], places[ROW], source, rows, scores, score_mod,
            score_args,
        )  # fmt: skip
    if call.reshaped and unit != 1.0:
        factor = cast(unit)
        for i in range(rows):
            for lane in range(lanes):
                scores[i, lane] *= factor
    if not spared:
        _hide_band(real, source, rows, places, scores)
    if call.mask != 0:
        _hide_mask(call, real, b, source, rows, places, turned, scores)


@inlined
def _cap(cap, rows, scores):
    for i in range(rows):
        for lane in range(scores.shape[1]):
            scores[i, lane] = cap * tanh(scores[i, lane] / cap)


@inlined
def _add_bias(call, real, b, source, rows, places, turned, scores):
    first = call.bias + b * call.bias_b + source * call.bias_s
    for lane in range(scores.shape[1]):
        h, t = places[HEAD, lane], places[TARGET, lane]
        places[ROW, lane] = first + h * call.bias_h + t * call.bias_t
    load_rows(real, call.bias_kind, places[ROW], call.bias_s, rows, turned, type(real)(1))
    for i in range(rows):
        for lane in range(scores.shape[1]):
            added = turned[i, lane]
            hides = added == type(real)(-np.inf)  # whatever the score is, NaN too
            scores[i, lane] = added if hides else scores[i, lane] + added


@inlined
def _hide_band(real, source, rows, places, scores):
    hidden = type(real)(-np.inf)
    for i in range(rows):
        s = source + i
        for lane in range(scores.shape[1]):
            seen = s >= places[LOW, lane] and s < places[HIGH, lane]
            scores[i, lane] = scores[i, lane] if seen else hidden


@inlined
def _hide_mask(call, real, b, source, rows, places, turned, scores):
    hidden = type(real)(-np.inf)
    first = call.mask + b * call.mask_b + source * call.mask_s
    for lane in range(scores.shape[1]):
        h, t = places[HEAD, lane], places[TARGET, lane]
        places[ROW, lane] = first + h * call.mask_h + t * call.mask_t
    load_rows(real, np.int64(BOOL), places[ROW], call.mask_s, rows, turned, type(real)(1))
    for i in range(rows):
        for lane in range(scores.shape[1]):
            seen = turned[i, lane] != type(real)(0)
            scores[i, lane] = scores[i, lane] if seen else hidden
