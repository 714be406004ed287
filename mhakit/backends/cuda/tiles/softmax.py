"""Softmax online, in powers of two: tile by tile, under the top that each row has so far."""

from __future__ import annotations

from collections.abc import Callable

from mhakit.backends.cuda.tiles.machine import Machine, Number, State
from mhakit.backends.cuda.tiles.scores import LOG2E
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["across", "lse_of", "weigh"]


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
