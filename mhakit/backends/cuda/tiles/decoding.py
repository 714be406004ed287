"""Attention of few targets: one block takes one segment of the sources of one key head.

Bound by reading keys and values once: all targets of all heads that share a key head are the rows
of one tile, and tiles of sources arrive in a ring while older ones are worked on. Each warp holds
every row for its own quarter of a tile. What a warp has come to is a part; the parts of a block
are merged, and those of all segments by a second kernel, in an order that depends on no device
(as in Milakov and Gimelshein, arXiv:1805.02867, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mhakit.backends.cuda.tiles.fragments import (
    add_product,
    carry_over,
    chunks_of,
    copy_rows,
    lane_of,
    operands_of,
    score_products,
    warp_of,
)
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State
from mhakit.backends.cuda.tiles.merging import Part, finish, merge_parts, read_part
from mhakit.backends.cuda.tiles.scores import Place, change, hide, hides, seen_words, sight_of
from mhakit.backends.cuda.tiles.segments import ROWS, SEGMENT, Decoding, part_bytes
from mhakit.backends.cuda.tiles.softmax import across, weigh
from mhakit.backends.cuda.tiles.specials import add_specials, has_specials, sort_out
from mhakit.backends.cuda.tiles.variant import SOURCES, Variant

__all__ = ["decode"]


class _KeyHead(Place):
    """Where a block is at work: ``h`` is the first head that shares ``g``, every target a row."""

    __slots__ = ()

    def of(self, m: Machine, row: Number) -> tuple[Number, Number]:
        """Return head and target of a row, or of the last where there is none."""
        T, last = self.past_row, _count_of(m) - 1
        row = m.select(row < last, row, last)
        return self.h + row // T, row % T

    def source(self, m: Machine, variant: Variant, tile: Number) -> Number:
        return tile * SOURCES + (warp_of(m) << 4) + ((lane_of(m) & 3) << 1)

    def entry(self, m: Machine, variant: Variant, row: int) -> tuple[Number, Number]:
        return self.of(m, (lane_of(m) >> 2) + 8 * row)

    def target(self, m: Machine, variant: Variant, row: int) -> Number:
        return self.entry(m, variant, row)[1]


class _Record(NamedTuple):
    """Which part of the scratch, (B, H, T, segments), a block makes."""

    first: Number
    """int64, the first of the rows, of all of (B, H, T)"""
    segments: Number
    segment: Number


def _count_of(m: Machine) -> Number:
    """Return how many rows a tile has."""
    return m.int32(m.field("ratio")) * m.int32(m.field("T"))


def decode(m: Machine, variant: Decoding) -> None:
    """Write what this block's segment comes to, or output and lse where there is no other."""
    segments = (m.int32(m.field("S")) + (SEGMENT - 1)) // SEGMENT
    segments = m.select(segments < 1, m.int32(1), segments)
    pair = m.block // segments
    segment = m.block - pair * segments
    ratio, T = m.int32(m.field("ratio")), m.int32(m.field("T"))
    G = m.int32(m.field("H")) // ratio
    b = pair // G
    g = pair - b * G
    place = _KeyHead(b, g * ratio, g, m.int32(0), T, *sight_of(m, b, m.int32(0), T))
    begin, stop = _tiles_of(m, place, segment)

    def work(state: State) -> State:
        parts = _sum_up(m, variant, place, begin, stop)
        record = _Record(m.int64(pair) * m.int64(_count_of(m)), segments, segment)
        _hand_over(m, variant, place, record, parts)
        return state

    # what nobody sees comes to nothing, and whoever merges knows which that is
    m.choose((begin < stop) | (segments == 1), [], work)


def _tiles_of(m: Machine, place: _KeyHead, segment: Number) -> tuple[Number, Number]:
    """Return the first tile of a segment that anybody sees, and the one after the last."""
    low, past = segment * SEGMENT, (segment + 1) * SEGMENT
    low = m.select(low < place.span.first, place.span.first, low)
    past = m.select(place.span.past < past, place.span.past, past)
    begin = low // SOURCES
    return begin, m.select(past > low, (past + (SOURCES - 1)) // SOURCES, begin)


def _sum_up(
    m: Machine, variant: Decoding, place: _KeyHead, begin: Number, stop: Number
) -> tuple[State, State, State]:
    """Return this warp's sums, tops and totals over its quarters of the tiles begin to stop."""
    size, end = variant.stage_bytes, variant.stages * variant.stage_bytes

    def copier(
        name: str, layout_at: Callable[[Number], Layout]
    ) -> Callable[[Number, Number], None]:
        base = m.field(name) + m.int64(place.b) * m.field(f"{name}_b")
        base = base + m.int64(place.g) * m.field(f"{name}_h")
        visible = place.span.first, place.span.past

        def copy_tile(tile: Number, stage: Number) -> None:
            def copy(state: State) -> State:
                layout, stride, first = layout_at(stage), m.field(f"{name}_s"), tile * SOURCES
                copy_rows(m, variant, layout, SOURCES, base, stride, first, visible)
                return state

            m.choose(tile < stop, [], copy)
            m.commit()  # of nothing, too: whoever waits counts groups

        return copy_tile

    copy_keys = copier("key", variant.key_at)
    copy_values = copier("value", variant.value_at)
    _copy_queries(m, variant, place)
    for ahead in range(variant.stages):
        copy_keys(begin + ahead, m.int32(ahead * size))
        if ahead + 1 < variant.stages:
            copy_values(begin + ahead, m.int32(ahead * size))

    def of_tile(tile: Number, state: State) -> State:
        sums, tops, totals, stage = state
        m.wait(2 * variant.stages - 2)
        m.barrier()  # the values before these have been read
        behind = m.select(stage == 0, m.int32(end - size), stage - size)
        copy_values(tile + (variant.stages - 1), behind)
        key_tile, value_tile = variant.key_at(stage), variant.value_at(stage)
        scores = score_products(m, variant, key_tile, m.int32(0), warp_of(m) << 4, ROWS)
        scores = change(m, variant, place, tile, scores)
        hiding = hides(m, variant, place, tile)

        def hidden(state: State) -> State:
            changed = hide(m, variant, place, tile, state[0])
            return [changed, seen_words(m, changed)]

        scores, seen = m.choose(hiding, [scores, [m.word(0)]], hidden)
        tops, totals, weights, carries = weigh(m, variant, scores, tops, totals)
        sums = carry_over(m, variant, sums, carries)
        m.wait(2 * variant.stages - 2)

        def look(state: State) -> State:
            return [m.barrier_any(has_specials(m, variant, value_tile))]

        def pass_by(state: State) -> State:
            m.barrier()
            return state

        (special,) = m.choose(hiding, [tile < 0], look, pass_by)

        def add_some(sums: State) -> State:
            kinds = variant.kinds_at(stage)
            sort_out(m, variant, value_tile, kinds)
            m.barrier()
            added = add_specials(m, variant, kinds, seen, warp_of(m), sums[0])
            m.barrier()  # kinds lie where the next keys will
            return [added]

        sums = m.choose(special, sums, add_some)
        copy_keys(tile + variant.stages, stage)
        part = operands_of(m, variant, weights)[0]
        for pair in range(variant.E // 16):
            columns = [sums[0][2 * pair : 2 * pair + 2]]
            columns = add_product(m, variant, value_tile, part, warp_of(m), pair, columns)
            sums[0][2 * pair : 2 * pair + 2] = columns[0]
        stage = m.select(stage == end - size, m.int32(0), stage + size)
        return [sums, tops, totals, stage]

    sums = [[[m.float32(0.0)] * 4 for _ in range(variant.E // 8)]]
    start = [sums, [m.float32(float("-inf"))] * 2, [m.float32(0.0)] * 2, m.int32(0)]
    sums, tops, totals, _ = m.loop(begin, stop, start, of_tile)
    m.wait(0)
    m.barrier()
    m.anew()
    totals = [across(m, variant, total, lambda a, b: a + b) for total in totals]
    return sums[0], tops, totals


def _copy_queries(m: Machine, variant: Decoding, place: _KeyHead) -> None:
    """Begin to copy the rows of this block; those that are nobody's become 0."""
    layout = variant.query
    for row, chunk in chunks_of(m, variant, layout, ROWS):
        h, t = place.of(m, row)
        address = m.field("query") + m.int64(place.b) * m.field("query_b")
        address = address + m.int64(h) * m.field("query_h") + m.int64(t) * m.field("query_t")
        visible = row < _count_of(m)
        m.copy(layout.place(row, chunk), address + m.int64(chunk << 4), visible)


def _hand_over(
    m: Machine,
    variant: Decoding,
    place: _KeyHead,
    record: _Record,
    parts: tuple[State, State, State],
) -> None:
    """Merge the parts of the warps, and write the result to scratch or as the output."""
    sums, tops, totals = parts
    size, lane = part_bytes(variant.E), lane_of(m)
    for half in (0, 1):
        row = (warp_of(m) << 4) + (lane >> 2) + 8 * half
        start = row * size + variant.ring
        for n, four in enumerate(sums):
            for i in (0, 1):
                at = start + ((lane & 3) << 3) + (32 * n + 4 * i)
                m.store_shared(at, [four[2 * half + i]])
        spare = m.select((lane & 3) == 1, totals[half], m.float32(0.0))
        number = m.select((lane & 3) == 0, tops[half], spare)
        m.store_shared(start + ((lane & 3) << 2) + 4 * variant.E, [number])
    m.barrier()
    m.anew()
    for turn in range(-(-ROWS * variant.E // 8 // variant.threads)):
        _merge_warps(m, variant, place, record, m.thread + turn * variant.threads)


def _merge_warps(
    m: Machine, variant: Decoding, place: _KeyHead, record: _Record, item: Number
) -> None:
    """Merge eight columns of a row over the warps of a block, and write them."""
    chunks, size = variant.E // 8, part_bytes(variant.E)
    row = item // chunks
    chunk = item - row * chunks
    exists = row < _count_of(m)
    row = m.select(exists, row, m.int32(0))
    of_warps = []
    for warp in range(variant.warps):
        start = row * size + (variant.ring + warp * ROWS * size)
        at = start + (chunk << 5)
        of_warps.append(read_part(m.load_shared_floats, start, at, 4 * variant.E))
    line = record.first + m.int64(row)

    def write(part: Part) -> Part:
        h, t = place.of(m, row)
        finish(m, part, (place.b, h, t), line, chunk, exists)
        return part

    def keep(part: Part) -> Part:
        top, total, eight = part
        start = line * m.int64(record.segments) + m.int64(record.segment)
        start = m.field("parts") + start * size
        at = start + m.int64(chunk << 5)
        m.store_words(at, eight[:4], exists)
        m.store_words(at + 16, eight[4:], exists)
        m.store_words(start + 4 * variant.E, [top, total, top, total], exists & (chunk == 0))
        return part

    m.choose(record.segments == 1, merge_parts(m, of_warps), write, keep)
