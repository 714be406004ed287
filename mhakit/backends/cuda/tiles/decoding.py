"""Attention of few targets: one block takes one segment of the sources of one key head.

Bound by reading keys and values once: all targets of all heads that share a key head are the rows
of one tile, and tiles of sources arrive in a ring while older ones are worked on. Each warp holds
every row for its own share of a tile. What a warp has come to is a part; the parts of a block
are merged, and those of all segments by a second kernel, in an order that depends on no device
(as in Milakov and Gimelshein, arXiv:1805.02867, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mhakit.backends.cuda.tiles.fragments import chunks_of, copy_rows
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State, lane_of, warp_of
from mhakit.backends.cuda.tiles.merging import Part, finish, merge_parts, read_part, store_eight
from mhakit.backends.cuda.tiles.scores import Place, change, hide, hides, seen_words, sight_of
from mhakit.backends.cuda.tiles.segments import ROWS, SEGMENT, Decoding, part_bytes
from mhakit.backends.cuda.tiles.shares import share_of
from mhakit.backends.cuda.tiles.softmax import across, lasting, weigh
from mhakit.backends.cuda.tiles.specials import has_specials
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["decode"]


class _KeyHead(Place):
    """Where a block is at work: ``h`` is the first head that shares ``g``, every target a row."""

    __slots__ = ()

    def source(self, m: Machine, variant: Variant, tile: Number) -> Number:
        assert isinstance(variant, Decoding)
        share = tile * variant.sources + (variant.share(warp_of(m)) << 4)
        return share + variant.first_column(lane_of(m))

    def entry(self, m: Machine, variant: Variant, row: int) -> tuple[Number, Number]:
        return _row_of(m, self.h, variant.row(warp_of(m), lane_of(m), row))

    def target(self, m: Machine, variant: Variant, row: int) -> Number:
        return self.entry(m, variant, row)[1]


class _Work(NamedTuple):
    """Which part of the scratch, (B, H, T, segments), a block makes."""

    b: Number
    h: Number
    """the first head that shares the block's key head"""
    first: Number
    """int64, the first of the block's rows, of all of (B, H, T)"""
    segments: Number
    segment: Number


def _work_of(m: Machine) -> _Work:
    """Find this block's work."""
    segments = (m.int32(m.field("S")) + (SEGMENT - 1)) // SEGMENT
    segments = m.select(segments < 1, m.int32(1), segments)
    pair = m.block // segments
    segment = m.block - pair * segments
    ratio = m.int32(m.field("ratio"))
    G = m.int32(m.field("H")) // ratio
    b = pair // G
    h = (pair - b * G) * ratio
    return _Work(b, h, m.int64(pair) * m.int64(_count_of(m)), segments, segment)


def _count_of(m: Machine) -> Number:
    """Return how many rows a tile has."""
    return m.int32(m.field("ratio")) * m.int32(m.field("T"))


def _row_of(m: Machine, h: Number, row: Number) -> tuple[Number, Number]:
    """Return head and target of a row, or of the last where there is none; ``h`` is the first."""
    T, last = m.int32(m.field("T")), _count_of(m) - 1
    row = m.select(row < last, row, last)
    return h + row // T, row % T


def decode(m: Machine, variant: Decoding) -> None:
    """Write what this block's segment comes to, or output and lse where there is no other."""
    work, T, ratio = _work_of(m), m.int32(m.field("T")), m.int32(m.field("ratio"))
    sight = sight_of(m, work.b, m.int32(0), T)
    place = _KeyHead(work.b, work.h, work.h // ratio, m.int32(0), T, *sight)
    begin, stop = _tiles_of(m, variant, place, work.segment)

    def of_block(state: State) -> State:
        _hand_over(m, variant, _sum_up(m, variant, place, begin, stop))
        return state

    # what nobody sees comes to nothing, and whoever merges knows which that is
    m.choose((begin < stop) | (work.segments == 1), [], of_block)


def _tiles_of(
    m: Machine, variant: Decoding, place: _KeyHead, segment: Number
) -> tuple[Number, Number]:
    """Return the first tile of a segment that anybody sees, and the one after the last."""
    low, past = segment * SEGMENT, (segment + 1) * SEGMENT
    low = m.select(low < place.span.first, place.span.first, low)
    past = m.select(place.span.past < past, place.span.past, past)
    begin = low // variant.sources
    after = (past + (variant.sources - 1)) // variant.sources
    return begin, m.select(past > low, after, begin)


def _sum_up(
    m: Machine, variant: Decoding, place: _KeyHead, begin: Number, stop: Number
) -> tuple[State, State, State]:
    """Return this warp's sums, tops and totals over its shares of the tiles begin to stop."""
    size, end = variant.stage_bytes, variant.stages * variant.stage_bytes
    share, sources = share_of(m, variant), variant.sources

    def copier(
        name: str, layout_at: Callable[[Number], Layout]
    ) -> Callable[[Number, Number], None]:
        base = m.field(name) + m.int64(place.b) * m.field(f"{name}_b")
        base = base + m.int64(place.g) * m.field(f"{name}_h")
        visible = place.span.first, place.span.past

        def copy_tile(tile: Number, stage: Number) -> None:
            def copy(state: State) -> State:
                layout, stride, first = layout_at(stage), m.field(f"{name}_s"), tile * sources
                copy_rows(m, variant, layout, sources, base, stride, first, visible)
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
        scores = change(m, variant, place, tile, share.score(key_tile))
        hiding = hides(m, variant, place, tile)

        def hidden(state: State) -> State:
            changed = hide(m, variant, place, tile, state[0])
            return [changed, seen_words(m, changed)]

        scores, seen = m.choose(hiding, [scores, [m.word(0)] * variant.groups], hidden)
        tops, totals, weights, carries = weigh(m, variant, scores, tops, totals)
        carries = [lasting(m, carry) for carry in carries]
        sums = share.carry(sums, carries)
        weights = share.ready(scores, weights)
        m.wait(2 * variant.stages - 2)

        def look(state: State) -> State:
            return [m.barrier_any(has_specials(m, variant, value_tile))]

        def pass_by(state: State) -> State:
            m.barrier()
            return state

        (special,) = m.choose(hiding, [tile < 0], look, pass_by)

        def settle(sums: State) -> State:
            return share.settle(value_tile, variant.kinds_at(stage), seen, sums)

        sums = m.choose(special, sums, settle)
        copy_keys(tile + variant.stages, stage)
        sums = share.add(value_tile, weights, sums, carries, special)
        stage = m.select(stage == end - size, m.int32(0), stage + size)
        return [sums, tops, totals, stage]

    rows = 2 * variant.groups
    start = [share.begin(), [m.float32(float("-inf"))] * rows, [m.float32(0.0)] * rows, m.int32(0)]
    sums, tops, totals, _ = m.loop(begin, stop, start, of_tile)
    m.wait(0)
    m.barrier()
    m.anew()
    totals = [across(m, variant, total, lambda a, b: a + b) for total in totals]
    return sums, tops, totals


def _copy_queries(m: Machine, variant: Decoding, place: _KeyHead) -> None:
    """Begin to copy the rows of this block; those that are nobody's become 0."""
    layout = variant.query
    for row, chunk in chunks_of(m, variant, layout, ROWS):
        h, t = _row_of(m, place.h, row)
        address = m.field("query") + m.int64(place.b) * m.field("query_b")
        address = address + m.int64(h) * m.field("query_h") + m.int64(t) * m.field("query_t")
        visible = row < _count_of(m)
        m.copy(layout.place(row, chunk), address + m.int64(chunk << 4), visible)


def _hand_over(m: Machine, variant: Decoding, parts: tuple[State, State, State]) -> None:
    """Merge the parts of the warps, and write the result to scratch or as the output."""
    sums, tops, totals = parts
    size, lane = variant.part_room, lane_of(m)
    for row in range(2 * variant.groups):
        start = (warp_of(m) << 4) + variant.row(warp_of(m), lane, row)
        start = start * size + variant.ring
        for column, numbers in share_of(m, variant).columns(sums, row):
            m.store_shared(start + (column << 2), numbers)
        turn = lane & (variant.lanes - 1)
        spare = m.select(turn == 1, totals[row], m.float32(0.0))
        number = m.select(turn == 0, tops[row], spare)
        m.store_shared(start + (turn << 2) + 4 * variant.part_width, [number])
    m.barrier()
    m.anew()
    work = _work_of(m)
    for turn in range(-(-ROWS * variant.E // 8 // variant.threads)):
        _merge_warps(m, variant, work, m.thread + turn * variant.threads)


def _merge_warps(m: Machine, variant: Decoding, work: _Work, item: Number) -> None:
    """Merge eight columns of a row over the warps of a block, and write them."""
    chunks, size = variant.held // 8, variant.part_room
    runs = item // chunks
    chunk, row, run = item - runs * chunks, runs // variant.runs, runs % variant.runs
    exists = row < _count_of(m)
    row = m.select(exists, row, m.int32(0))
    of_warps = []
    for warp in range(0, variant.warps, variant.runs):
        start = (run * ROWS + row) * size + (variant.ring + warp * ROWS * size)
        at = start + (chunk << 5)
        of_warps.append(read_part(m.load_shared_floats, start, at, 4 * variant.part_width))
    line, chunk = work.first + m.int64(row), run * chunks + chunk

    def write(part: Part) -> Part:
        h, t = _row_of(m, work.h, row)
        finish(m, variant, part, (work.b, h, t), line, chunk, exists)
        return part

    def keep(part: Part) -> Part:
        top, total, eight = part
        start = line * m.int64(work.segments) + m.int64(work.segment)
        start = m.field("parts") + start * part_bytes(variant.E)
        store_eight(m, start + m.int64(chunk << 5), eight, exists)
        m.store_words(start + 4 * variant.E, [top, total, top, total], exists & (chunk == 0))
        return part

    m.choose(work.segments == 1, merge_parts(m, of_warps), write, keep)
