"""Parts of attention over disjoint sources, and the kernel that merges those of a row.

A part is [top, total, sums]: the largest score, the sum of the weights under it, and eight columns
of weighted values.
"""

from __future__ import annotations

from collections.abc import Callable

from mhakit.backends.cuda.tiles.machine import WARP, Machine, Number, State
from mhakit.backends.cuda.tiles.scores import Span, sight_of
from mhakit.backends.cuda.tiles.segments import MERGED, SEGMENT, Merging, part_bytes
from mhakit.backends.cuda.tiles.softmax import lasting, lse_of
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["Part", "finish", "merge", "merge_parts", "read_part", "store_eight"]

Part = State

_TOGETHER = 4
"""Segments that a thread reads at once: it waits for the slowest of them, not for each."""


def merge(m: Machine, variant: Merging) -> None:
    """Write 16 columns of a row of the output, and with the first of them its lse.

    A thread takes 8 columns of every 64th segment; then warps merge, then the block.
    """
    columns = variant.E // MERGED
    line = m.block // columns
    column = m.block - line * columns
    H, T, S = (m.int32(m.field(name)) for name in ("H", "T", "S"))
    b = line // (H * T)
    h = (line - b * (H * T)) // T
    t = line % T
    *_, span = sight_of(m, b, m.int32(0), T)
    segments = (S + (SEGMENT - 1)) // SEGMENT
    chunk = (column << 1) + (m.thread & 1)
    size, streams = part_bytes(variant.E), variant.threads // 2
    turn_size = SEGMENT * streams * _TOGETHER
    begin = span.first // turn_size
    stop = m.select(span.past > span.first, (span.past + (turn_size - 1)) // turn_size, begin)

    def of_turn(turn: Number, part: Part) -> Part:
        parts = [part]
        for i in range(_TOGETHER):
            segment = (turn * _TOGETHER + i) * streams + (m.thread >> 1)
            written = _was_written(segment, span)
            segment = m.select(written, segment, span.first // SEGMENT)
            start = m.int64(line) * m.int64(segments) + m.int64(segment)
            start = m.field("parts") + start * size
            at = start + m.int64(chunk << 5)
            found = read_part(m.load_floats, start, at, 4 * variant.E)
            parts.append(_or_nothing(m, written, found))
        return merge_parts(m, parts)

    part = m.loop(begin, stop, _nothing(m), of_turn)
    for mask in (2, 4, 8, 16):
        top, total, eight = part
        other = [m.shuffle(top, mask), m.shuffle(total, mask), [m.shuffle(x, mask) for x in eight]]
        part = merge_parts(m, [part, other])
    top, total, eight = part
    place = m.thread * 48
    m.store_shared(place, eight[:4])
    m.store_shared(place + 16, eight[4:])
    m.store_shared(place + 32, [top, total, top, total])
    m.barrier()
    of_warps = []
    for warp in range(variant.threads // WARP):
        place = (m.thread & 1) * 48 + warp * (WARP * 48)
        of_warps.append(read_part(m.load_shared_floats, place, place, 32))
    part = merge_parts(m, of_warps)
    finish(m, variant, part, (b, h, t), m.int64(line), chunk, m.thread < 2)


def _was_written(segment: Number, span: Span) -> Number:
    """Return whether anybody sees a source of a segment: the others come to nothing."""
    low = segment * SEGMENT
    return (low < span.past) & (low + SEGMENT > span.first)


def read_part(load: Callable[[Number], State], start: Number, at: Number, numbers: int) -> Part:
    """Return the part at ``start`` whose sums are ``at`` and whose top is ``numbers`` further."""
    top, total, _, _ = load(start + numbers)
    return [top, total, [*load(at), *load(at + 16)]]


def merge_parts(m: Machine, parts: list[Part]) -> Part:
    """Return the part that several make up, in their order; one of nothing changes no bit."""
    factor, top = m.field("factor"), parts[0][0]
    for part in parts[1:]:
        top = m.maximum(top, part[0])
    base = m.select(top == float("-inf"), m.float32(0.0), top)
    total, sums = m.float32(0.0), [m.float32(0.0)] * 8
    for part in parts:
        carry = m.exp2((part[0] - base) * factor)
        total = m.fma(part[1], carry, total)
        carry = lasting(m, carry)
        sums = [m.fma(x, carry, y) for x, y in zip(part[2], sums, strict=True)]
    return [top, total, sums]


def finish(
    m: Machine,
    variant: Variant | Merging,
    part: Part,
    row: tuple[Number, Number, Number],
    line: Number,
    chunk: Number,
    when: Number,
) -> None:
    """Write eight columns of the output of row b, h, t, and lse with the first of them.

    ``line`` is the row's number among all of (B, H, T).
    """
    b, h, t = row
    sinks = m.field("sinks")

    def join(part: Part) -> Part:
        sink = m.load_float32(sinks + m.int64(h) * 4)
        top = sink * m.reciprocal(m.field("unit"))  # in the units of a score
        return merge_parts(m, [part, [top, m.float32(1.0), [m.float32(0.0)] * 8]])

    top, total, eight = m.choose(sinks != 0, part, join)
    inverse = m.select(total == 0.0, m.float32(0.0), m.reciprocal(total))
    eight = [m.fma(x, inverse, 0.0) for x in eight]  # no zero is -0.0
    address = m.field("out") + m.int64(b) * m.field("out_b") + m.int64(h) * m.field("out_h")
    address = address + m.int64(t) * m.field("out_t")
    if variant.dtype == "float32":
        store_eight(m, address + m.int64(chunk << 5), eight, when)
    else:
        words = [m.pack(eight[i], eight[i + 1]) for i in (0, 2, 4, 6)]
        m.store_words(address + m.int64(chunk << 4), words, when)
    lse = m.field("lse")

    def store(state: State) -> State:
        m.store_float32(lse + line * 4, lse_of(m, top, total), when & (chunk == 0))
        return state

    m.choose(lse != 0, [], store)


def store_eight(m: Machine, address: Number, eight: State, when: Number) -> None:
    """Write eight float32 to global memory, in the threads where ``when`` holds."""
    m.store_words(address, eight[:4], when)
    m.store_words(address + 16, eight[4:], when)


def _nothing(m: Machine) -> Part:
    return [m.float32(float("-inf")), m.float32(0.0), [m.float32(0.0)] * 8]


def _or_nothing(m: Machine, condition: Number, part: Part) -> Part:
    """Return a part, or one of nothing."""
    top, total, eight = part
    none = m.float32(0.0)
    return [
        m.select(condition, top, float("-inf")),
        m.select(condition, total, none),
        [m.select(condition, x, none) for x in eight],
    ]
