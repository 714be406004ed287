"""Tiles between global memory, shared memory and the registers of a warp.

Fragments are those of mma.sync m16n8k16 and m16n8k8 (PTX ISA, "Matrix Fragments for
mma.m16n8k16"): lane 4 r + q of a warp holds columns 2 q and 2 q + 1 of rows r and r + 8.
"""

from __future__ import annotations

from collections.abc import Iterator

from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State, lane_of, warp_of
from mhakit.backends.cuda.tiles.product import product_of
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = [
    "add_products",
    "carry_over",
    "chunks_of",
    "copy_rows",
    "lane_of",
    "operands_of",
    "score_products",
    "store_rows",
    "warp_of",
]


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
    query, product = variant.query, product_of(variant)
    steps = query.chunks // 2
    at_once = product.at_once(variant, steps)

    def several(turn: Number, sums: State) -> State:
        lane = lane_of(m)
        queries = query.place(row + (lane & 15), lane >> 4)
        keys = key.place(source + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1)
        sums = [list(group) for group in sums]
        for step in range(at_once):
            chunk = turn * (2 * at_once) + 2 * step
            asked = [
                m.load_matrices(query.step(queries, 16 * group, chunk), transposed=False)
                for group in range(variant.groups)
            ]
            asked = [product.operand(m, words) for words in asked]
            for pair in range(sources // 16):
                found = m.load_matrices(key.step(keys, 16 * pair, chunk), transposed=False)
                parts = [product.operand(m, found[2 * half : 2 * half + 2]) for half in (0, 1)]
                for group in range(variant.groups):
                    for n, part in enumerate(parts, 2 * pair):
                        sums[group][n] = product.add_score(m, asked[group], part, sums[group][n])
        return sums

    sums: State = [[product.begin(m)] * (sources // 8) for _ in range(variant.groups)]
    if at_once == steps:
        sums = several(0, sums)
    else:
        # a number of the call: one that the compiler knows, it would unroll
        turns = m.int32(m.field("D")) // (variant.D // (steps // at_once))
        sums = m.loop(m.int32(0), turns, sums, several)
    return [[product.scores(m, part) for part in group] for group in sums]


def operands_of(m: Machine, variant: Variant, weights: list[list[State]]) -> list[list[State]]:
    """Return weights as what is multiplied, [group of 16 targets][step of sources]."""
    product = product_of(variant)
    return [
        [product.weights(m, group, k) for k in range(8 * len(group) // product.depth)]
        for group in weights
    ]


def _add_product(
    m: Machine,
    variant: Variant,
    layout: Layout,
    weights: list[State],
    k: Number,
    pair: Number,
    sums: list[list[State]],
) -> list[list[State]]:
    """Return sums + weights of a step's sources @ columns 16 pair + … of a tile of values.

    ``weights`` are [group of 16 targets] -> an operand, ``sums`` [group][8 columns] -> sums of
    products.
    """
    product = product_of(variant)
    found = [product.operand(m, words) for words in product.values(m, layout, k, pair)]
    return [
        [product.add(m, weight, found[half], group[half]) for half in (0, 1)]
        for weight, group in zip(weights, sums, strict=True)
    ]


def carry_over(
    m: Machine, variant: Variant, sums: list[list[State]], carries: State
) -> list[list[State]]:
    """Return sums times their rows' factors, or as they are where `add_products` does it."""
    product = product_of(variant)
    return [
        [product.carry(m, four, _factors(carries, group)) for four in columns]
        for group, columns in enumerate(sums)
    ]


def _factors(carries: State, group: int) -> State:
    """Return the factors of four sums, of rows 2 group and 2 group + 1."""
    return [carries[2 * group + i // 2] for i in range(4)]


def add_products(
    m: Machine,
    variant: Variant,
    layout: Layout,
    first: Number,
    weights: list[list[State]],
    sums: list[list[State]],
    carries: State,
) -> list[list[State]]:
    """Return sums, carried over, + weights @ a tile of values, from step ``first`` of sources on.

    ``weights`` are those of `operands_of`, ``sums`` those of `carry_over`, [group][8 columns] ->
    4 float32, ``carries`` a factor for each of this thread's rows.
    """
    product = product_of(variant)
    sums = [list(group) for group in sums]
    for pair in range(variant.held // 16):
        if variant.product == "3xtf32":
            m.warp_barrier()  # else the compiler loads more than there are registers for
        columns = [[product.go_on(m, group[2 * pair + half]) for half in (0, 1)] for group in sums]
        for k in range(len(weights[0])):
            part = [group[k] for group in weights]
            columns = _add_product(m, variant, layout, part, first + k, pair, columns)
        for group, found in enumerate(columns):
            for n, part in enumerate(found, 2 * pair):
                four = sums[group][n]
                sums[group][n] = product.carried(m, part, four, _factors(carries, group))
    return sums


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

    16-bit numbers go through shared memory, so that 16 bytes leave at once.
    """
    lane, layout = lane_of(m), variant.output
    if variant.product == "3xtf32":
        return _store_chunks(m, variant, sums, base, stride, first, past)
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


def _store_chunks(
    m: Machine,
    variant: Variant,
    sums: list[list[State]],
    base: Number,
    stride: Number,
    first: Number,
    past: Number,
) -> None:
    """Do as `store_rows` for float32: two runs of columns hold four neighbours, 16 bytes."""
    product = product_of(variant)
    for row in range(2 * variant.groups):
        target = first + variant.row(warp_of(m), lane_of(m), row)
        address = base + m.int64(target) * stride
        for pair in range(variant.E // 16):
            runs = sums[row // 2][2 * pair : 2 * pair + 2]
            ((column, four),) = product.neighbours(m, runs, row % 2)
            m.store_words(address + m.int64(column << 2) + 64 * pair, four, target < past)
