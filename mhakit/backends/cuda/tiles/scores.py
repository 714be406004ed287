"""What happens to a tile of scores before softmax: changes, and which sources are hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mhakit.backends.cuda.tiles.fragments import lane_of, warp_of
from mhakit.backends.cuda.tiles.machine import Machine, Number, State
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = [
    "LOG2E",
    "Place",
    "Span",
    "change",
    "hide",
    "hides",
    "place_of",
    "seen_words",
    "sight_of",
]

LOG2E = 1.4426950408889634074
_TANH = (-0.0062121386575, 0.0210743841132, -0.0538667495799, 0.1333287115676, -0.3333332992345)
"""(tanh x - x) / x^3 on |x| < 0.6 in powers of x^2, the highest first; to 1.2e-8 of tanh x"""
_FAR = 2**30
"""Further than any source is from any target: their numbers stay below `LIMIT`."""


class Span(NamedTuple):
    """Which sources a run of targets sees by band and length."""

    first: Number
    """int32, the first that some target sees"""
    past: Number
    all_first: Number
    """int32, from here every target sees"""
    all_past: Number


class Place(NamedTuple):
    """Where a block is at work."""

    b: Number
    h: Number
    g: Number
    first_row: Number
    past_row: Number
    """int32, the target after the block's last"""
    offset: Number
    """int64, the source position of target 0"""
    left: Number
    """int32, target t sees t + left <= s <= t + right"""
    right: Number
    length: Number
    """int32, the sources that exist"""
    span: Span

    def source(self, m: Machine, variant: Variant, tile: Number) -> Number:
        """Return the first source of a tile that this thread holds a score of."""
        return tile * variant.sources + variant.first_column(lane_of(m))

    def target(self, m: Machine, variant: Variant, row: int) -> Number:
        """Return the target of this thread's row; past the last one it belongs to nobody."""
        return self.first_row + variant.row(warp_of(m), lane_of(m), row)

    def entry(self, m: Machine, variant: Variant, row: int) -> tuple[Number, Number]:
        """Return head and target of this thread's row, or of the last where there is none."""
        t = self.target(m, variant, row)
        return self.h, m.select(t < self.past_row, t, self.past_row - 1)


def place_of(m: Machine, variant: Variant) -> Place:
    """Find this block's work: tiles that see most come first, heads in sections.

    A section's heads share the cache; within it, neighbours in the queue are other heads' tiles
    of the same weight.
    """
    int32 = m.int32
    pairs, tiles, section = (int32(m.field(n)) for n in ("pairs", "tiles", "section"))
    T, H, ratio = (int32(m.field(n)) for n in ("T", "H", "ratio"))
    part = m.block // (section * tiles)
    rest = m.block - part * (section * tiles)
    begin = part * section
    heads = m.select(pairs - begin < section, pairs - begin, section)
    turn = rest // heads
    pair = begin + (rest - turn * heads)
    tile = tiles - 1 - turn
    b = pair // H
    h = pair - b * H
    first_row = tile * variant.rows
    past_row = m.select(T - first_row < variant.rows, T, first_row + variant.rows)
    return Place(b, h, h // ratio, first_row, past_row, *sight_of(m, b, first_row, past_row))


def sight_of(
    m: Machine, b: Number, first_row: Number, past_row: Number
) -> tuple[Number, Number, Number, Number, Span]:
    """Return offset, left, right, length and span of a run of targets."""
    offset = m.load_int64(m.field("offsets") + m.int64(b) * 8)
    length = m.load_int64(m.field("lengths") + m.int64(b) * 8)
    length = _within(m, length, 0, m.field("S"))
    first, all_past = _seen(m, first_row, offset, length)
    all_first, past = _seen(m, past_row - 1, offset, length)
    length = m.int32(length)
    left, right = offset - m.field("left"), offset + m.field("right")
    left, right = (m.int32(_within(m, x, -_FAR, _FAR)) for x in (left, right))
    span = Span(first, past, all_first, all_past)
    return offset, left, right, length, span


def _seen(m: Machine, t: Number, offset: Number, length: Number) -> tuple[Number, Number]:
    """Return the first source that target t sees and the one after the last, within 0 to S."""
    S = m.field("S")
    position = m.int64(t) + offset
    low = position - m.field("left")
    high = position + m.field("right") + 1
    high = m.select(high < length, high, length)
    low, high = (m.int32(_within(m, x, 0, S)) for x in (low, high))
    return low, high


def _within(m: Machine, x: Number, low: Number, high: Number) -> Number:
    """Return x, or the end of low to high that it is beyond."""
    x = m.select(x < high, x, high)
    return m.select(x > low, x, low)


def _elements(
    m: Machine, variant: Variant, place: Place, tile: Number, scores: list[list[State]]
) -> Iterator[tuple[int, int, int, Number, Number]]:
    """Yield group, n, i of each score, its row among this thread's, and its source."""
    column = place.source(m, variant, tile)
    for group in range(variant.groups):
        for n in range(len(scores[group])):
            for i in range(4):
                yield group, n, i, 2 * group + i // 2, column + variant.column(n, i)


def _entry(m: Machine, name: str, place: Place, row: tuple[Number, Number], s: Number) -> Number:
    """Return the address of [b, h, t, s] of a broadcast array."""
    S = m.int32(m.field("S"))
    s = m.select(s < S, s, S - 1)
    address = m.field(name)
    for letter, index in (("b", place.b), ("h", row[0]), ("t", row[1]), ("s", s)):
        address = address + m.int64(index) * m.field(f"{name}_{letter}")
    return address


def change(
    m: Machine, variant: Variant, place: Place, tile: Number, scores: list[list[State]]
) -> list[list[State]]:
    """Scale, softcap, bias and score_mod, in this order, where the variant has any."""
    if not variant.changes:
        return scores
    scores = [[list(four) for four in group] for group in scores]
    rows = [place.entry(m, variant, row) for row in range(2 * variant.groups)]
    scale, cap = m.field("scale"), m.field("softcap")
    inverse = m.reciprocal(cap) if variant.softcap else scale
    for group, n, i, row, s in _elements(m, variant, place, tile, scores):
        (h, t), x = rows[row], scores[group][n][i]
        factor = scale
        if variant.softcap:
            x, factor = _tanh(m, x * scale * inverse), cap
        if variant.bias:
            bias = m.load_float32(_entry(m, "bias", place, (h, t), s))
            x = m.fma(x, factor, bias)
        else:
            x = x * factor
        if variant.score_mod:
            position = m.int32(m.int64(t) + place.offset)
            x = m.modify(x, place.b, h, position, s)
        if variant.bias:
            x = m.select(bias == float("-inf"), float("-inf"), x)
        scores[group][n][i] = x
    return scores


def _tanh(m: Machine, x: Number) -> Number:
    """Return tanh to about 2^-22 of itself: a polynomial near 0, else 1 - 2 / (1 + exp(2 |x|))."""
    square = x * x
    near = m.float32(_TANH[0])
    for coefficient in _TANH[1:]:
        near = m.fma(near, square, m.float32(coefficient))
    near = m.fma(x * square, near, x)
    size = m.maximum(x, -x)
    far = m.fma(m.reciprocal(m.exp2(size * (2 * LOG2E)) + 1.0), -2.0, m.float32(1.0))
    far = m.select(x < 0.0, -far, far)
    return m.select(size < 0.6, near, far)


def hides(m: Machine, variant: Variant, place: Place, tile: Number) -> Number:
    """Return whether a tile hides a source from any of the block's targets."""
    source, span = tile * variant.sources, place.span
    if variant.hides_anywhere:
        return source >= 0
    return (source < span.all_first) | (source + variant.sources > span.all_past)


def hide(
    m: Machine, variant: Variant, place: Place, tile: Number, scores: list[list[State]]
) -> list[list[State]]:
    """Return scores with -inf for every source that its target does not see."""
    scores = [[list(four) for four in group] for group in scores]
    for group, n, i, row, s in _elements(m, variant, place, tile, scores):
        t = place.target(m, variant, row)
        seen = (s - t >= place.left) & (s - t <= place.right) & (s < place.length)
        if variant.mask:
            entry = _entry(m, "mask", place, place.entry(m, variant, row), s)
            seen = seen & m.load_bool(entry)
        scores[group][n][i] = m.select(seen, scores[group][n][i], float("-inf"))
    return scores


def seen_words(m: Machine, scores: list[list[State]]) -> list[Number]:
    """Return a bit for each score, whether its source is seen: a word for each group."""
    words = []
    for group in scores:
        word = m.word(0)
        for i, x in enumerate(x for four in group for x in four):
            word = word | (m.word(x != float("-inf")) << i)
        words.append(word)
    return words
