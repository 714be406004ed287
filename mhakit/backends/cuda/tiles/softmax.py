"""Softmax online, in powers of two: tile by tile, under the top that each row has so far."""

from __future__ import annotations

from collections.abc import Callable

from mhakit.backends.cuda.tiles.machine import Machine, Number, State, lane_of
from mhakit.backends.cuda.tiles.scores import LOG2E, Place
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["across", "begin_rows", "lasting", "lse_of", "store_lse", "weigh"]

_LEAST = 2.0**-126


def begin_rows(m: Machine, variant: Variant, h: Number) -> State:
    """Return tops and totals of nothing seen, or of the sink, which has weight and no value."""
    sinks = m.field("sinks")

    def load(state: State) -> State:
        sink = m.load_float32(sinks + m.int64(h) * 4)
        # in the units of a score; one lane of those that share a row counts it
        top = sink * m.reciprocal(m.field("unit"))
        return [top, m.float32(_leads(m, variant) & (sink != float("-inf")))]

    none = [m.float32(float("-inf")), m.float32(0.0)]
    top, total = m.choose(sinks != 0, none, load)
    return [[top] * (2 * variant.groups), [total] * (2 * variant.groups)]


def _leads(m: Machine, variant: Variant) -> Number:
    """Return whether this is the first of the lanes that share its rows."""
    return (lane_of(m) & (variant.lanes - 1)) == 0


def weigh(
    m: Machine, variant: Variant, scores: list[list[State]], tops: State, totals: State
) -> tuple[State, State, State, list[list[State]]]:
    """Turn scores into weights under the new top of each row.

    Return tops, totals, weights as the scores are, and what carries over to the new tops what
    was summed under the old ones.
    """
    factor = m.field("factor")
    tops, totals, carries = list(tops), list(totals), []
    weights = [[list(four) for four in group] for group in scores]
    for row in range(2 * variant.groups):
        group, pair = row // 2, (2 * (row % 2), 2 * (row % 2) + 1)
        top = scores[group][0][pair[0]]
        for four in scores[group]:
            for i in pair:
                top = m.maximum(top, four[i])
        top = m.maximum(tops[row], across(m, variant, top, m.maximum))
        base = m.select(top == float("-inf"), m.float32(0.0), top)
        carry = m.exp2((tops[row] - base) * factor)
        partial = m.float32(0.0)
        for four in weights[group]:
            for i in pair:
                four[i] = m.exp2((four[i] - base) * factor)  # the top's weight is exactly 1
                partial = partial + four[i]
        tops[row], totals[row] = top, m.fma(totals[row], carry, partial)
        carries.append(carry)
    return tops, totals, weights, carries


def lasting(m: Machine, carry: Number) -> Number:
    """Return what sums are carried over by, never 0: an infinity that was seen stays one."""
    return m.maximum(carry, m.float32(_LEAST))


def across(
    m: Machine, variant: Variant, x: Number, join: Callable[[Number, Number], Number]
) -> Number:
    """Join a number of the lanes that share a row."""
    mask = 1
    while mask < variant.lanes:
        x = join(x, m.shuffle(x, mask))
        mask *= 2
    return x


def lse_of(m: Machine, top: Number, total: Number) -> Number:
    """Return the natural log of a row's sum, given the sum of its weights under its top."""
    logarithm = m.select(total == 1.0, m.float32(0.0), m.log2(total))
    return m.fma(logarithm, 1 / LOG2E, top * m.field("unit"))


def store_lse(m: Machine, variant: Variant, place: Place, tops: State, totals: State) -> None:
    """Write `lse_of` each row, float32 (B, H, T), where asked."""
    lse = m.field("lse")

    def store(state: State) -> State:
        head = place.b * m.int32(m.field("H")) + place.h
        for row in range(2 * variant.groups):
            t = place.target(m, variant, row)
            address = lse + (m.int64(head) * m.field("T") + m.int64(t)) * 4
            exists = _leads(m, variant) & (t < place.past_row)
            m.store_float32(address, lse_of(m, tops[row], totals[row]), exists)
        return state

    m.choose(lse != 0, [], store)
