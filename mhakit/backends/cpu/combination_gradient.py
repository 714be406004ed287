"""The gradient of combining heads: a tile of rows (b, t) at a time; BLAS does the projections.

One pass over the heads gives their gradient and that of their weights. What is summed over T is
summed within a tile first, and tiles hold a fixed number of rows: bits do not depend on the
number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mhakit.backends.cpu.combination import NANOSECONDS_PER_NUMBER, flat
from mhakit.backends.cpu.flags import FLAGS, inlined
from mhakit.backends.cpu.launch import kernel
from mhakit.plugin_api import CombinationPlan

__all__ = ["combine_heads_vjp"]

Array = NDArray[Any]

ROWS = 32
"""Rows of a tile."""


def combine_heads_vjp(
    heads: Array, plan: CombinationPlan, combined: Array, d_output: Array, weighs: bool
) -> tuple[Array, CombinationPlan]:
    """Return dL/d(heads), (B, H, T, E), and dL/d(plan), all of one dtype.

    ``combined`` is what `combine_heads` returned, ``d_output`` (B, T, M); the gradient of
    head_weights is computed where ``weighs`` says so.
    """
    B, H, T, E = heads.shape
    dY = d_output.reshape(B * T, d_output.shape[2])
    d_weight, d_combined = None, dY
    if plan.weight is not None:
        d_weight = combined.T @ dY
        d_combined = dY @ plan.weight.T
    d_bias = None if plan.bias is None else dY.sum(axis=0)
    if plan.head_weights is None and plan.groups == H:
        rows = d_combined.copy() if plan.weight is None else d_combined
        d_heads = rows.reshape(B, T, H, E).swapaxes(1, 2)
        return d_heads, CombinationPlan(H, d_weight, d_bias, None, plan.reduce)
    d_heads, d_factors = _weighing(heads, plan, d_combined, weighs)
    return d_heads, CombinationPlan(plan.groups, d_weight, d_bias, d_factors, plan.reduce)


def _weighing(
    heads: Array, plan: CombinationPlan, d_combined: Array, weighs: bool
) -> tuple[Array, Array | None]:
    """Return the gradients of the heads, (B, H, T, E), and of their weights, in their shape."""
    B, H, T, E = heads.shape
    given = np.asarray(1 if plan.head_weights is None else plan.head_weights, heads.dtype)
    shape = (1,) * (4 - given.ndim) + given.shape
    factors = np.broadcast_to(given, heads.shape) if given.ndim else given
    line, place = flat(heads, (heads.itemsize,))
    factor_line, factor_place = flat(factors, (0, factors.itemsize))
    by_word, by_element = shape[2] > 1, factor_place[4] > 0
    slots = T if by_word else -(-T // ROWS)
    d_factors = np.zeros((B, H, slots, E if by_element else 1) if weighs else (0,) * 4, heads.dtype)
    d_heads = np.empty((B, T, H, E), heads.dtype)
    if heads.size:
        _pull_rows(
            line,
            place,
            factor_line,
            factor_place,
            np.ascontiguousarray(d_combined),
            H // plan.groups,
            plan.reduce == "max",
            weighs,
            by_word,
            d_heads,
            d_factors,
            work=2 * NANOSECONDS_PER_NUMBER * heads.size,
        )
    axes = tuple(i for i, n in enumerate(shape) if n == 1)
    summed = np.asarray(d_factors.sum(axis=axes)).reshape(given.shape) if weighs else None
    return d_heads.swapaxes(1, 2), summed


@njit(**{**FLAGS, "fastmath": {"contract", "reassoc"}})
def _dot(a, b):
    """Return the sum over e of a * b, in the order of lanes: the same for any two lines of E."""
    total = type(a[0])(0)
    for e in range(a.size):
        total += a[e] * b[e]
    return total


@inlined
def _dot_of_finite(a, b):
    """Return the sum over e of a * b where a is finite."""
    total = type(a[0])(0)
    for e in range(a.size):
        if a[e] - a[e] == 0:  # inf - inf is NaN
            total += a[e] * b[e]
    return total


@inlined
def _find_largest(heads, at, step_h, factors, factor_at, factor_h, factor_e, share, kept, winner):
    """Write to ``winner``, (E,), which of ``share`` heads is the maximum: first come, NaN first."""
    for i in range(share):
        head = heads[at + i * step_h : at + i * step_h + kept.size]
        from_factor = factor_at + i * factor_h
        for e in range(kept.size):
            factor = factors[from_factor + e * factor_e]
            value = head[e] * factor if factor != 0 else type(factor)(0)
            better = value > kept[e] or (value != value and kept[e] == kept[e])
            if i == 0 or better:
                kept[e] = value
                winner[e] = i


@inlined
def _pull_largest(head, factors, factor_e, d_group, winner, i, weighs, d_head, d_factors):
    """Pull back to head i of a group where it is the maximum; else it gets 0 and gives 0."""
    for e in range(head.size):
        zero = type(head[e])(0)
        factor = factors[e * factor_e]
        won = winner[e] == i
        d_head[e] = d_group[e] * factor if won and factor != 0 else zero
        if weighs and won and (factor != 0 or head[e] - head[e] == 0):
            d_factors[e * factor_e] += head[e] * d_group[e]


@inlined
def _pull_by_head(head, factor, d_group, weighs, d_head, d_factors):
    """Pull back to one head's (E,) line that was weighed with one factor."""
    if factor == 0:  # 0 * inf is NaN: a head of weight 0 gets nothing
        d_head[:] = factor
        if weighs:
            d_factors[0] += _dot_of_finite(head, d_group)
    else:
        for e in range(head.size):
            d_head[e] = d_group[e] * factor
        if weighs:
            d_factors[0] += _dot(head, d_group)


@inlined
def _pull_by_element(head, factors, d_group, weighs, d_head, d_factors):
    """Pull back to one head's (E,) line that was weighed with a factor for each element."""
    for e in range(head.size):
        factor = factors[e]
        d_head[e] = d_group[e] * factor if factor != 0 else type(factor)(0)
    if weighs:
        for e in range(head.size):
            product = head[e] * d_group[e]
            seen = factors[e] != 0 or head[e] - head[e] == 0
            d_factors[e] += product if seen else type(product)(0)


@kernel
def _pull_rows(
    heads,
    place,
    factors,
    factor_place,
    d_combined,
    share,
    largest,
    weighs,
    by_word,
    d_heads,
    d_factors,
):
    """Write the heads' gradient, (B, T, H, E), and add that of their weights to ``d_factors``.

    ``d_combined`` is (B*T, groups*E), of groups of ``share`` heads. ``d_factors`` is zeros
    (B, H, T, E) or (B, H, T, 1), or with a slot for each tile of rows in place of T where the
    weights are the same for all words. ``heads`` and ``factors`` are lines of numbers, their
    places (start, b, h, t, e); one step along e is 1 number, for factors also 0.
    """
    start, step_b, step_h, step_t, _ = place
    factor_start, factor_b, factor_h, factor_t, factor_e = factor_place
    B, T, H, E = d_heads.shape
    tiles = (T + ROWS - 1) // ROWS
    for tile in prange(B * tiles):
        b = tile // tiles
        first = (tile - b * tiles) * ROWS
        kept = np.empty(E, d_heads.dtype)
        winner = np.zeros(E, np.int64)
        for t in range(first, min(first + ROWS, T)):
            slot = t if by_word else tile - b * tiles
            for h in range(H):
                at = start + b * step_b + h * step_h + t * step_t
                head = heads[at : at + E]
                at = factor_start + b * factor_b + h * factor_h + t * factor_t
                line = factors[at : at + (E if factor_e else 1)]
                d_group = d_combined[b * T + t, h // share * E : h // share * E + E]
                d_head = d_heads[b, t, h]
                d_line = d_factors[b, h, slot] if weighs else d_head
                if largest:
                    i = h % share
                    if i == 0:
                        _find_largest(
                            heads,
                            start + b * step_b + h * step_h + t * step_t,
                            step_h,
                            factors,
                            at,
                            factor_h,
                            factor_e,
                            share,
                            kept,
                            winner,
                        )
                    _pull_largest(head, line, factor_e, d_group, winner, i, weighs, d_head, d_line)
                elif factor_e == 0:
                    _pull_by_head(head, line[0], d_group, weighs, d_head, d_line)
                else:
                    _pull_by_element(head, line, d_group, weighs, d_head, d_line)
