"""Forward attention: one block holds a tile of targets and streams the tiles of its sources.

FlashAttention-2's scheme (arXiv:2307.08691, sections 3.1 and 3.2): a warp holds whole rows of
scores, weights never leave its registers, keys and values arrive while it computes. Softmax is
online, in powers of two.
"""

from __future__ import annotations

from collections.abc import Callable

from mhakit.backends.cuda.tiles.fragments import (
    add_product,
    as_operand,
    copy_rows,
    lane_of,
    score_products,
    store_rows,
    warp_of,
)
from mhakit.backends.cuda.tiles.machine import Machine, Number, State
from mhakit.backends.cuda.tiles.scores import LOG2E, Place, change, hide, place_of, seen_words
from mhakit.backends.cuda.tiles.specials import (
    add_marked,
    clear_marks,
    has_specials,
    mark_specials,
    sort_out,
)
from mhakit.backends.cuda.tiles.variant import SOURCES, Variant

__all__ = ["attend"]


def attend(m: Machine, variant: Variant) -> None:
    """Write output and lse of the targets of this block."""
    place = place_of(m, variant)
    b, h, g, first, past = place.b, place.h, place.g, place.span.first, place.span.past

    def start_of(name: str, head: Number) -> Number:
        return (
            m.field(name) + m.int64(b) * m.field(f"{name}_b") + m.int64(head) * m.field(f"{name}_h")
        )

    key, value = start_of("key", g), start_of("value", g)

    def copy_keys(tile: Number) -> None:
        copy_rows(
            m, variant, variant.key, SOURCES, key, m.field("key_s"), tile * SOURCES, (first, past)
        )
        m.commit()

    begin = first // SOURCES
    stop = m.select(past > first, (past + (SOURCES - 1)) // SOURCES, begin)
    rows = (m.int32(0), place.past_row)
    copy_rows(
        m, variant, variant.query, variant.rows, start_of("query", h), m.field("query_t"),
        place.first_row, rows,
    )  # fmt: skip
    copy_keys(begin)

    def of_tile(tile: Number, state: State) -> State:
        sums, tops, totals, marked = state
        m.wait(0)
        m.barrier()
        copy_rows(
            m, variant, variant.value, SOURCES, value, m.field("value_s"), tile * SOURCES,
            (first, past),
        )  # fmt: skip
        m.commit()
        scores = change(m, variant, place, tile, score_products(m, variant))
        nothing = [m.word(0)] * variant.groups
        hides = _hides(m, variant, place, tile)

        def hidden(state: State) -> State:
            changed = hide(m, variant, place, tile, state[0])
            return [changed, seen_words(m, changed)]

        scores, seen = m.choose(hides, [scores, nothing], hidden)
        sums, tops, totals, weights = _weigh(m, variant, scores, sums, tops, totals)
        m.wait(0)

        def look(state: State) -> State:
            return [m.barrier_any(has_specials(m, variant))]

        def pass_by(state: State) -> State:
            m.barrier()
            return state

        (special,) = m.choose(hides, [tile < 0], look, pass_by)

        def clear(state: State) -> State:
            clear_marks(m, variant)
            return state

        def copy_next(state: State) -> State:
            copy_keys(tile + 1)
            return state

        def note(state: State) -> State:
            m.choose(marked, [], lambda state: state, clear)
            sort_out(m, variant)
            m.barrier()
            mark_specials(m, variant, seen)
            m.barrier()  # kinds lie where the next keys will
            return state

        m.choose(special, [], note)
        m.choose(tile + 1 < stop, [], copy_next)
        for pair in range(variant.E // 16):
            columns = [group[2 * pair : 2 * pair + 2] for group in sums]
            for k in range(SOURCES // 16):
                part = [group[k] for group in weights]
                columns = add_product(m, variant.value, part, k, pair, columns)
            for group, found in zip(sums, columns, strict=True):
                group[2 * pair : 2 * pair + 2] = found
        return [sums, tops, totals, marked | special]

    sums, tops, totals, marked = m.loop(begin, stop, _start(m, variant, h), of_tile)
    m.wait(0)
    m.barrier()
    m.anew()
    totals = [_across(m, total, lambda a, b: a + b) for total in totals]
    _store_lse(m, variant, place, tops, totals)
    sums = m.choose(marked, sums, lambda sums: add_marked(m, variant, sums))
    for row, total in enumerate(totals):
        inverse = m.select(total == 0.0, m.float32(0.0), m.reciprocal(total))
        for four in sums[row // 2]:
            for i in (2 * (row % 2), 2 * (row % 2) + 1):
                four[i] = m.fma(four[i], inverse, 0.0)  # no zero is -0.0
    store_rows(
        m, variant, sums, start_of("out", h), m.field("out_t"), place.first_row, place.past_row
    )


def _hides(m: Machine, variant: Variant, place: Place, tile: Number) -> Number:
    """Return whether a tile hides a source from any of the block's targets."""
    source, span = tile * SOURCES, place.span
    if variant.hides_anywhere:
        return source >= 0
    return (source < span.all_first) | (source + SOURCES > span.all_past)


def _start(m: Machine, variant: Variant, h: Number) -> State:
    """Begin with nothing seen, or with the sink, whose logit has weight and no value."""
    sinks = m.field("sinks")

    def load(state: State) -> State:
        sink = m.load_float32(sinks + m.int64(h) * 4)
        # in the units of a score; one lane of the four that share a row counts it
        top = sink * m.reciprocal(m.field("unit"))
        counts = ((lane_of(m) & 3) == 0) & (sink != float("-inf"))
        return [top, m.float32(counts)]

    none = [m.float32(float("-inf")), m.float32(0.0)]
    top, total = m.choose(sinks != 0, none, load)
    sums = [[[m.float32(0.0)] * 4 for _ in range(variant.E // 8)] for _ in range(variant.groups)]
    return [sums, [top] * (2 * variant.groups), [total] * (2 * variant.groups), h < 0]


def _weigh(
    m: Machine,
    variant: Variant,
    scores: list[list[State]],
    sums: list[list[State]],
    tops: State,
    totals: State,
) -> tuple[list[list[State]], State, State, list[list[State]]]:
    """Turn scores into weights under the new top of each row; carry the sums over to it."""
    factor = m.field("factor")
    tops, totals = list(tops), list(totals)
    sums = [[list(four) for four in group] for group in sums]
    weights = [[list(four) for four in group] for group in scores]
    for row in range(2 * variant.groups):
        group, pair = row // 2, (2 * (row % 2), 2 * (row % 2) + 1)
        top = scores[group][0][pair[0]]
        for four in scores[group]:
            for i in pair:
                top = m.maximum(top, four[i])
        top = m.maximum(tops[row], _across(m, top, m.maximum))
        base = m.select(top == float("-inf"), m.float32(0.0), top)
        carry = m.exp2((tops[row] - base) * factor)
        partial = m.float32(0.0)
        for four in weights[group]:
            for i in pair:
                four[i] = m.exp2((four[i] - base) * factor)  # the top's weight is exactly 1
                partial = partial + four[i]
        tops[row], totals[row] = top, m.fma(totals[row], carry, partial)
        for four in sums[group]:
            for i in pair:
                four[i] = four[i] * carry
    packed = [
        [[m.pack(group[n][i], group[n][i + 1]) for n, i in as_operand(k)]
         for k in range(SOURCES // 16)]
        for group in weights
    ]  # fmt: skip
    return sums, tops, totals, packed


def _across(m: Machine, x: Number, join: Callable[[Number, Number], Number]) -> Number:
    """Join a number of the four lanes that share a row."""
    for mask in (1, 2):
        x = join(x, m.shuffle(x, mask))
    return x


def _store_lse(m: Machine, variant: Variant, place: Place, tops: State, totals: State) -> None:
    """Write the natural log of each row's sum, float32 (B, H, T), where asked."""
    lse = m.field("lse")

    def store(state: State) -> State:
        head = place.b * m.int32(m.field("H")) + place.h
        for row in range(2 * variant.groups):
            t = place.first_row + warp_of(m) * (16 * variant.groups) + (lane_of(m) >> 2) + 8 * row
            logarithm = m.select(totals[row] == 1.0, m.float32(0.0), m.log2(totals[row]))
            result = m.fma(logarithm, 1 / LOG2E, tops[row] * m.field("unit"))
            address = lse + (m.int64(head) * m.field("T") + m.int64(t)) * 4
            m.store_float32(address, result, ((lane_of(m) & 3) == 0) & (t < place.past_row))
        return state

    m.choose(lse != 0, [], store)
