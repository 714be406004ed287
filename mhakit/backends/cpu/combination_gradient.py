"""The gradient of combining heads: a tile of rows (b, t) at a time; BLAS does the projections.

One pass over the heads gives their gradient and that of their weights. What is summed over T is
summed within a tile first, and tiles hold a fixed number of rows: bits do not depend on the
number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.combination import NANOSECONDS_PER_NUMBER, placed
from mhakit.backends.cpu.flags import FLAGS, inlined
from mhakit.backends.cpu.integers import lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import end, take
from mhakit.backends.cpu.record import HEAD, address_of, pack, records
from mhakit.backends.cpu.scratch import release, reserve
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.plugin_api import CombinationPlan

__all__ = ["combine_heads_vjp"]

Array = NDArray[Any]

_INTEGERS = (
    *HEAD, "H", "T", "E", "share", "largest", "weighs", "by_word", "by_element",
    "heads", "heads_b", "heads_h", "heads_t",
    "factors", "factors_b", "factors_h", "factors_t", "factors_e",
    "d_combined", "d_row", "d_heads", "d_factors", "slots",
)  # fmt: skip

PULLING = records(_INTEGERS)
"""Addresses and byte strides; ``d_heads``, (B, T, H, E), is contiguous.

``d_factors`` is zeros (B, H, slots, E or 1), with a slot for each word, or for each tile of rows
where the weights are the same for all words. There are groups of ``share`` heads.
"""

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
    lines, place = placed(heads, (heads.itemsize,))
    factors, factor_place = placed(factors, (0, heads.itemsize))
    by_word, by_element = shape[2] > 1, factor_place[4] > 0
    slots = T if by_word else -(-T // ROWS)
    d_factors = np.zeros((B, H, slots, E if by_element else 1) if weighs else (0,) * 4, heads.dtype)
    d_heads = np.empty((B, T, H, E), heads.dtype)
    if heads.size:
        d_rows = np.ascontiguousarray(d_combined)
        calls = pack(
            PULLING[heads.dtype],
            (
                H, T, E, H // plan.groups, plan.reduce == "max", weighs, by_word, by_element,
                *place[:4], *factor_place, address_of(d_rows), *d_rows.strides[:1],
                address_of(d_heads), address_of(d_factors), slots,
            ),
        )  # fmt: skip
        work = 2 * NANOSECONDS_PER_NUMBER * lines.size
        run_in_slices(
            _run.of(heads.dtype), calls, B * -(-T // ROWS), work, unknown=True, blocks=ROWS
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
def _find_largest(real, heads, step, factors, factor_step, by_element, share, kept, winner):
    """Write to ``winner``, (E,), which of ``share`` heads is the maximum: first come, NaN first."""
    E = kept.size
    for i in range(share):
        head = numbers_at(real, heads + i * step, E)
        factor_line = numbers_at(real, factors + i * factor_step, E if by_element else 1)
        for e in range(E):
            factor = factor_line[e if by_element else 0]
            value = head[e] * factor if factor != 0 else type(factor)(0)
            better = value > kept[e] or (value != value and kept[e] == kept[e])
            if i == 0 or better:
                kept[e] = value
                winner[e] = i


@inlined
def _pull_largest(head, factors, by_element, d_group, winner, i, weighs, d_head, d_factors):
    """Pull back to head i of a group where it is the maximum; else it gets 0 and gives 0."""
    for e in range(head.size):
        zero = type(head[e])(0)
        at = e if by_element else 0
        factor = factors[at]
        won = winner[e] == i
        d_head[e] = d_group[e] * factor if won and factor != 0 else zero
        if weighs and won and (factor != 0 or head[e] - head[e] == 0):
            d_factors[at] += head[e] * d_group[e]


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


def _enter(calls):
    """Be one worker."""
    records = records_at(calls, 1)
    _work(records, records[0].one)


_run = Worker(_enter, PULLING)


@inlined
def _work(calls, real):
    """Take tiles of rows until none is left."""
    call = calls[0]
    room, winner, (kept,) = reserve(real, (1, call.E), ((1, call.E),))
    if room == 0:
        return
    tiles = -(-call.T // ROWS)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        b, tile = item // tiles, item % tiles
        first = tile * ROWS
        past = first + lesser(ROWS, call.past_block)
        for t in range(first + call.first_block, lesser(past, call.T)):
            _pull_row(call, real, b, t, t if call.by_word else tile, kept[0], winner[0])
    release(room)
    end(calls)


@inlined
def _pull_row(call, real, b, t, slot, kept, winner):
    """Write the gradient of one row's heads, and add that of their weights to a slot."""
    H, T, E, share = call.H, call.T, call.E, call.share
    size = kept.itemsize
    by_element, weighs = call.by_element != 0, call.weighs != 0
    factors_width = E if by_element else 1
    d_rows = call.d_combined + (b * T + t) * call.d_row
    d_heads = call.d_heads + (b * T + t) * H * E * size
    heads = call.heads + b * call.heads_b + t * call.heads_t
    factors = call.factors + b * call.factors_b + t * call.factors_t
    for h in range(H):
        head = numbers_at(real, heads + h * call.heads_h, E)
        line = numbers_at(real, factors + h * call.factors_h, factors_width)
        d_group = numbers_at(real, d_rows + h // share * E * size, E)
        d_head = numbers_at(real, d_heads + h * E * size, E)
        at = ((b * H + h) * call.slots + slot) * factors_width * size
        d_line = numbers_at(real, call.d_factors + at if weighs else d_heads, factors_width)
        if call.largest:
            if h % share == 0:
                _find_largest(
                    real, heads + h * call.heads_h, call.heads_h, factors + h * call.factors_h,
                    call.factors_h, by_element, share, kept, winner,
                )  # fmt: skip
            _pull_largest(
                head, line, by_element, d_group, winner, h % share, weighs, d_head, d_line
            )
        elif by_element:
            _pull_by_element(head, line, d_group, weighs, d_head, d_line)
        else:
            _pull_by_head(head, line[0], d_group, weighs, d_head, d_line)
