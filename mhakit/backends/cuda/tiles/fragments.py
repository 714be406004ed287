"""Tiles between global memory, shared memory and the registers of a warp.

Fragments are those of mma.sync m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): lane
4 r + q of a warp holds columns 2 q and 2 q + 1 of rows r and r + 8.
"""

from __future__ import annotations

from collections.abc import Iterator

from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import WARP, Machine, Number, State
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = [
    "add_product",
    "as_operand",
    "chunks_of",
    "copy_rows",
    "lane_of",
    "score_products",
    "store_rows",
    "warp_of",
]


def lane_of(m: Machine) -> Number:
    """Return this thread's place in its warp."""
    return m.thread & (WARP - 1)


def warp_of(m: Machine) -> Number:
    """Return this thread's warp."""
    return m.thread >> 5


def chunks_of(
    m: Machine, variant: Variant, layout: Layout, rows: int
) -> Iterator[tuple[Number, Number]]:
    """Yield the row and chunk of each 16 bytes of a tile that are this thread's to move.

    Where rows do not divide among threads, some get rows past the last.
    """
    chunks, threads = layout.chunks, variant.threads
    for turn in range(-(-rows * chunks // threads)):
        if threads % chunks == 0:
            yield m.thread // chunks + turn * (threads // chunks), m.thread % chunks
        else:
            index = m.thread + turn * threads
            yield index // chunks, index % chunks


def copy_rows(
    m: Machine,
    variant: Variant,
    layout: Layout,
    rows: int,
    base: Number,
    stride: Number,
    first: Number,
    visible: tuple[Number, Number],
) -> None:
    """Begin to copy rows first, first + 1, … of global memory; those not visible become 0."""
    low, high = visible
    for turn, (row, chunk) in enumerate(chunks_of(m, variant, layout, rows)):
        if turn == 0 or variant.threads % layout.chunks:
            address = base + m.int64(first + row) * stride + m.int64(chunk << 4)
        else:
            address = address + stride * (variant.threads // layout.chunks)
        seen = (first + row >= low) & (first + row < high)
        m.copy(layout.place(row, chunk) + layout.start, address, seen)


def score_products(
    m: Machine, variant: Variant, key: Layout, row: Number, source: Number, sources: int
) -> list[list[State]]:
    """Return queries @ keys^T, [group of 16 targets][8 sources] -> 4 float32.

    This warp's are the rows ``row`` and on of the queries, and of the keys ``source`` and on.
    """
    lane, query = lane_of(m), variant.query
    queries = query.place(row + (lane & 15), lane >> 4)
    keys = key.place(source + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1)
    scores = [[[m.float32(0.0)] * 4 for _ in range(sources // 8)] for _ in range(variant.groups)]
    for k in range(variant.D // 16):
        asked = [
            m.load_matrices(query.step(queries, 16 * group, 2 * k), transposed=False)
            for group in range(variant.groups)
        ]
        for pair in range(sources // 16):
            found = m.load_matrices(key.step(keys, 16 * pair, 2 * k), transposed=False)
            for group in range(variant.groups):
                for half in (0, 1):
                    n = 2 * pair + half
                    part = found[2 * half : 2 * half + 2]
                    scores[group][n] = m.multiply(asked[group], part, scores[group][n])
    return scores


def as_operand(k: int) -> list[tuple[int, int]]:
    """Return which pairs of a row's scores, n and i, are the words of 16 weights as an operand."""
    return [(2 * k, 0), (2 * k, 2), (2 * k + 1, 0), (2 * k + 1, 2)]


def add_product(
    m: Machine,
    layout: Layout,
    weights: list[State],
    k: Number,
    pair: Number,
    sums: list[list[State]],
) -> list[list[State]]:
    """Return sums + weights of sources 16 k + … @ columns 16 pair + … of a tile of values.

    ``weights`` are [group of 16 targets] -> 4 words, ``sums`` [group][8 columns] -> 4 float32.
    """
    lane = lane_of(m)
    place = layout.place(lane & 15, lane >> 4)
    found = m.load_matrices(layout.step(place, 16 * k, 2 * pair), transposed=True)
    return [
        [m.multiply(weight, found[2 * half : 2 * half + 2], group[half]) for half in (0, 1)]
        for weight, group in zip(weights, sums, strict=True)
    ]


def store_rows(
    m: Machine,
    variant: Variant,
    sums: list[list[State]],
    base: Number,
    stride: Number,
    first: Number,
    past: Number,
) -> None:
    """Write a tile's output, [group][8 columns] -> 4 float32, to the rows before ``past``.

    It goes through shared memory, so that 16 bytes leave at once.
    """
    lane, layout = lane_of(m), variant.output
    for group in range(variant.groups):
        row = warp_of(m) * (16 * variant.groups) + (16 * group + (lane >> 2))
        place = layout.place(row, lane & 0) + ((lane & 3) << 2)
        for n, (a, b, c, d) in enumerate(sums[group]):
            for half, pair in ((0, (a, b)), (1, (c, d))):
                m.store_shared(layout.step(place, 8 * half, n), [m.pack(*pair)])
    m.barrier()
    for row, chunk in chunks_of(m, variant, layout, variant.rows):
        words = m.load_shared(layout.place(row, chunk) + layout.start)
        target = first + row
        address = base + m.int64(target) * stride + m.int64(chunk << 4)
        m.store_words(address, words, target < past)
