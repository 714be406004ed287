"""Forward attention of float32 without tensor cores: every product is an fma, in order.

One block holds a tile of targets and streams the tiles of its sources, as `attention` does, from
one room for keys and values. A thread multiplies registers: its rows by its sources, and, the
weights of a warp's rows having been exchanged in shared memory, its rows by its columns.
"""

from __future__ import annotations

from collections.abc import Callable

from mhakit.backends.cuda.tiles.fragments import chunks_of
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State, lane_of, warp_of
from mhakit.backends.cuda.tiles.scores import change, hide, hides, place_of
from mhakit.backends.cuda.tiles.softmax import across, begin_rows, lasting, store_lse, weigh
from mhakit.backends.cuda.tiles.specials import has_specials
from mhakit.backends.cuda.tiles.variant import Fma, Variant

__all__ = [
    "add_products",
    "attend",
    "carry_over",
    "chunks_held",
    "no_sums",
    "score_products",
    "store_weights",
]

_HIDDEN = 0x80000000
"""-0.0, the weight of what is not seen: what is finite adds nothing, multiplied by it."""
_AHEAD = 8
"""Loads of 16 bytes that are under way at once."""


def attend(m: Machine, variant: Fma) -> None:
    """Write output and lse of the targets of this block."""
    place, sources, zero = place_of(m, variant), variant.sources, m.int32(0)
    first, past = place.span.first, place.span.past

    def start_of(name: str, head: Number) -> Number:
        address = m.field(name) + m.int64(place.b) * m.field(f"{name}_b")
        return address + m.int64(head) * m.field(f"{name}_h")

    def load_sources(name: str, layout: Layout, tile: Number) -> None:
        base, stride = start_of(name, place.g), m.field(f"{name}_s")
        load_rows(m, variant, layout, sources, base, stride, tile * sources, (first, past))

    load_rows(
        m, variant, variant.query, variant.rows, start_of("query", place.h), m.field("query_t"),
        place.first_row, (zero, place.past_row),
    )  # fmt: skip

    def of_tile(tile: Number, state: State) -> State:
        sums, tops, totals = state
        m.barrier()  # the values before these have been read
        load_sources("key", variant.key, tile)
        m.barrier()
        scores = score_products(m, variant, variant.key, zero, sources)
        scores = change(m, variant, place, tile, scores)
        hiding = hides(m, variant, place, tile)
        (scores,) = m.choose(
            hiding, [scores], lambda state: [hide(m, variant, place, tile, state[0])]
        )
        tops, totals, weights, carries = weigh(m, variant, scores, tops, totals)
        store_weights(m, variant, variant.weights, scores, weights)
        m.barrier()  # keys have been read, and weights are there
        load_sources("value", variant.value, tile)

        def look(state: State) -> State:
            return [m.barrier_any(has_specials(m, variant, variant.value))]

        def pass_by(state: State) -> State:
            m.barrier()
            return state

        (special,) = m.choose(hiding, [tile < 0], look, pass_by)
        sums = carry_over(sums, [lasting(m, carry) for carry in carries])
        tiles = variant.weights, variant.value
        sums = add_products(m, variant, tiles, (zero, sources), sums, careful=special)
        return [sums, tops, totals]

    begin = first // sources
    stop = m.select(past > first, (past + (sources - 1)) // sources, begin)
    start = [no_sums(m, variant), *begin_rows(m, variant, place.h)]
    sums, tops, totals = m.loop(begin, stop, start, of_tile)
    m.anew()
    totals = [across(m, variant, total, lambda a, b: a + b) for total in totals]
    store_lse(m, variant, place, tops, totals)
    base, stride = start_of("out", place.h), m.field("out_t")
    for row, total in enumerate(totals):
        inverse = m.select(total == 0.0, m.float32(0.0), m.reciprocal(total))
        t = place.target(m, variant, row)
        for j, chunk in enumerate(_chunks(m, variant)):
            four = [m.fma(x, inverse, 0.0) for x in sums[row][4 * j : 4 * j + 4]]  # no -0.0
            own = (t < place.past_row) & (chunks_held(m, variant)[j] < variant.value.chunks)
            m.store_words(base + m.int64(t) * stride + m.int64(chunk << 4), four, own)


def no_sums(m: Machine, variant: Variant) -> State:
    """Return sums of 0, [row][column]."""
    columns = 4 * len(chunks_held(m, variant))
    return [[m.float32(0.0)] * columns for _ in range(2 * variant.groups)]


def chunks_held(m: Machine, variant: Variant) -> list[Number]:
    """Return the chunks of a row of values that are this thread's; some may be past the last."""
    return [(lane_of(m) & 7) + 8 * j for j in range(-(-variant.held // 32))]


def _chunks(m: Machine, variant: Variant) -> list[Number]:
    """Return the chunks of a row of values that are this thread's, or the last instead."""
    count, found = variant.held // 4, []
    for j, chunk in enumerate(chunks_held(m, variant)):
        if 8 * (j + 1) > count:
            chunk = m.select(chunk < count, chunk, m.int32(count - 1))
        found.append(chunk)
    return found


def load_rows(
    m: Machine,
    variant: Variant,
    layout: Layout,
    rows: int,
    base: Number,
    stride: Number,
    first: Number,
    visible: tuple[Number, Number],
) -> None:
    """Read rows first, first + 1, … of global memory; those not visible become 0."""
    low, high = visible
    places = list(chunks_of(m, variant, layout, rows))
    for begin in range(0, len(places), _AHEAD):
        loaded = []
        for row, chunk in places[begin : begin + _AHEAD]:
            number = first + row
            seen = (number >= low) & (number < high)
            address = base + m.int64(m.select(seen, number, low)) * stride + m.int64(chunk << 4)
            loaded.append((layout.place(row, chunk) + layout.start, m.load_floats(address), seen))
        for at, four, seen in loaded:
            m.store_shared(at, [m.select(seen, x, m.float32(0.0)) for x in four])


def _turns(m: Machine, variant: Variant, count: int) -> Number:
    """Return a count as a number of the call: one that the compiler knows, it would unroll."""
    return m.int32(m.field("D")) // (variant.D // count)


def _rows_at(m: Machine, variant: Variant, layout: Layout) -> list[Number]:
    """Return where this thread's first two rows begin in a tile; two rows on lie 8 further."""
    return [layout.place(variant.row(warp_of(m), lane_of(m), i), lane_of(m) & 0) for i in (0, 1)]


def score_products(
    m: Machine, variant: Variant, key: Layout, source: Number, sources: int
) -> list[list[State]]:
    """Return this thread's queries @ keys^T, two rows each, as `Variant.row` and `.column` say.

    Of the tile of keys this warp takes so many sources, ``source`` and on.
    """
    query = variant.query

    def two_chunks(turn: Number, sums: State) -> State:
        rows = _rows_at(m, variant, query)
        # the number of the chunk is swapped as that of chunk 0 or 1 is: it differs by an even one
        first = source + (lane_of(m) & 7)
        places = [key.place(first, m.int32(c)) for c in (0, 1)]
        sums = [[list(four) for four in group] for group in sums]
        for c in (0, 1):
            keys = [
                m.load_shared_floats(key.step(places[c], 8 * j, turn * 2))
                for j in range(sources // 8)
            ]
            for row in range(2 * variant.groups):
                at = query.step(rows[row % 2], 8 * (row // 2), turn * 2 + c)
                asked = m.load_shared_floats(at)
                for j, found in enumerate(keys):
                    four, i = sums[row // 2][j // 2], 2 * (row % 2) + j % 2
                    for x, y in zip(asked, found, strict=True):
                        four[i] = m.fma(x, y, four[i])
        return sums

    none = [[[m.float32(0.0)] * 4] * (sources // 16) for _ in range(variant.groups)]
    return m.loop(m.int32(0), _turns(m, variant, variant.D // 8), none, two_chunks)


def store_weights(
    m: Machine,
    variant: Variant,
    layout: Layout,
    scores: list[list[State]],
    weights: list[list[State]],
) -> None:
    """Write this thread's weights to their tile, `_HIDDEN` for what is not seen."""
    mine = lane_of(m) & 7
    rows = [
        layout.place(variant.row(warp_of(m), lane_of(m), i), mine >> 2) + ((mine & 3) << 2)
        for i in (0, 1)
    ]
    for group, (fours, marks) in enumerate(zip(weights, scores, strict=True)):
        for n, (four, mark) in enumerate(zip(fours, marks, strict=True)):
            for i, (x, score) in enumerate(zip(four, mark, strict=True)):
                x = m.select(score == float("-inf"), m.float32(-0.0), x)
                m.store_shared(layout.step(rows[i // 2], 8 * group, 2 * (2 * n + i % 2)), [x])


def carry_over(sums: State, carries: State) -> State:
    """Return sums, [row][column], times their rows' factors."""
    return [[x * carry for x in row] for row, carry in zip(sums, carries, strict=True)]


def add_products(
    m: Machine,
    variant: Variant,
    tiles: tuple[Layout, Layout],
    sources: tuple[Number, int],
    sums: State,
    *,
    careful: Number,
) -> State:
    """Return sums + weights @ values, [row][column].

    ``tiles`` are those of weights and of values; of the values this warp takes those from the
    first of ``sources`` on, so many. Where care is taken, what is hidden adds nothing, and what
    is no number but seen adds itself.
    """
    (layout, value), (first, count) = tiles, sources

    def with_care(taken: bool) -> Callable[[State], State]:
        def four_sources(turn: Number, sums: State) -> State:
            rows = _rows_at(m, variant, layout)
            weights = [
                m.load_shared_floats(layout.step(rows[row % 2], 8 * (row // 2), turn))
                for row in range(2 * variant.groups)
            ]
            sums = [list(row) for row in sums]
            for s in range(4):
                for j, chunk in enumerate(_chunks(m, variant)):
                    at = value.place(first + (turn << 2) + s, chunk) + value.start
                    for n, x in enumerate(m.load_shared_floats(at), 4 * j):
                        for row, four in zip(sums, weights, strict=True):
                            row[n] = _add(m, four[s], x, row[n], taken)
            return sums

        return lambda sums: m.loop(m.int32(0), _turns(m, variant, count // 4), sums, four_sources)

    return m.choose(careful, sums, with_care(True), with_care(False))


def _add(m: Machine, weight: Number, x: Number, total: Number, careful: bool) -> Number:
    if not careful:
        return m.fma(weight, x, total)
    added = m.fma(m.select(x - x == 0.0, weight, m.float32(1.0)), x, total)
    return m.select(m.bits(weight) == _HIDDEN, total, added)
