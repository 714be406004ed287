"""Forward attention: one block holds a tile of targets and streams the tiles of its sources.

FlashAttention-2's scheme (arXiv:2307.08691, sections 3.1 and 3.2): a warp holds whole rows of
scores, weights never leave its registers, keys and values arrive while it computes. Softmax is
online, in powers of two.
"""

from __future__ import annotations

from mhakit.backends.cuda.tiles.fragments import (
    add_products,
    carry_over,
    copy_rows,
    operands_of,
    score_products,
    store_rows,
    warp_of,
)
from mhakit.backends.cuda.tiles.machine import Machine, Number, State
from mhakit.backends.cuda.tiles.scores import change, hide, hides, place_of, seen_words
from mhakit.backends.cuda.tiles.softmax import across, begin_rows, store_lse, weigh
from mhakit.backends.cuda.tiles.specials import (
    add_marked,
    clear_marks,
    has_specials,
    mark_specials,
    sort_out,
)
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["attend"]


def attend(m: Machine, variant: Variant) -> None:
    """Write output and lse of the targets of this block."""
    place, sources = place_of(m, variant), variant.sources
    b, h, g, first, past = place.b, place.h, place.g, place.span.first, place.span.past

    def start_of(name: str, head: Number) -> Number:
        return (
            m.field(name) + m.int64(b) * m.field(f"{name}_b") + m.int64(head) * m.field(f"{name}_h")
        )

    key, value = start_of("key", g), start_of("value", g)

    def copy_keys(tile: Number) -> None:
        copy_rows(
            m, variant, variant.key, sources, key, m.field("key_s"), tile * sources, (first, past)
        )
        m.commit()

    begin = first // sources
    stop = m.select(past > first, (past + (sources - 1)) // sources, begin)
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
            m, variant, variant.value, sources, value, m.field("value_s"), tile * sources,
            (first, past),
        )  # fmt: skip
        m.commit()
        scores = change(m, variant, place, tile, _score(m, variant))
        nothing = [m.word(0)] * variant.groups
        hiding = hides(m, variant, place, tile)

        def hidden(state: State) -> State:
            changed = hide(m, variant, place, tile, state[0])
            return [changed, seen_words(m, changed)]

        scores, seen = m.choose(hiding, [scores, nothing], hidden)
        tops, totals, weights, carries = weigh(m, variant, scores, tops, totals)
        sums = carry_over(m, variant, sums, carries)
        operands = operands_of(m, variant, weights)
        m.wait(0)

        def look(state: State) -> State:
            return [m.barrier_any(has_specials(m, variant, variant.value))]

        def pass_by(state: State) -> State:
            m.barrier()
            return state

        (special,) = m.choose(hiding, [tile < 0], look, pass_by)

        def clear(state: State) -> State:
            clear_marks(m, variant)
            return state

        def copy_next(state: State) -> State:
            copy_keys(tile + 1)
            return state

        def note(state: State) -> State:
            m.choose(marked, [], lambda state: state, clear)
            sort_out(m, variant, variant.value, variant.kinds)
            m.barrier()
            mark_specials(m, variant, seen)
            m.barrier()  # kinds lie where the next keys will
            return state

        m.choose(special, [], note)
        m.choose(tile + 1 < stop, [], copy_next)
        sums = add_products(m, variant, variant.value, 0, operands, sums, carries)
        return [sums, tops, totals, marked | special]

    none = [[[m.float32(0.0)] * 4 for _ in range(variant.E // 8)] for _ in range(variant.groups)]
    start = [none, *begin_rows(m, variant, h), h < 0]
    sums, tops, totals, marked = m.loop(begin, stop, start, of_tile)
    m.wait(0)
    m.barrier()
    m.anew()
    totals = [across(m, variant, total, lambda a, b: a + b) for total in totals]
    store_lse(m, variant, place, tops, totals)
    sums = m.choose(marked, sums, lambda sums: add_marked(m, variant, sums))
    for row, total in enumerate(totals):
        inverse = m.select(total == 0.0, m.float32(0.0), m.reciprocal(total) * variant.worth)
        for four in sums[row // 2]:
            for i in (2 * (row % 2), 2 * (row % 2) + 1):
                four[i] = m.fma(four[i], inverse, 0.0)  # no zero is -0.0
    store_rows(
        m, variant, sums, start_of("out", h), m.field("out_t"), place.first_row, place.past_row
    )


def _score(m: Machine, variant: Variant) -> list[list[State]]:
    """Return the bare scores of a tile whose queries and keys have arrived."""
    row = warp_of(m) * (16 * variant.groups)
    return score_products(m, variant, variant.key, row, m.int32(0), variant.sources)
