"""Combine heads: a row (b, t) weighs its H heads and reduces them to groups; BLAS projects.

The weighing kernel sees memory as one flat read-only line and strides, so that it is compiled
once a computation dtype. A row is computed alone, its heads in order: its bits before the
projection do not depend on B, T or the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.launch import kernel
from mhakit.plugin_api import CombinationPlan
from mhakit.problem import computation_dtype

__all__ = ["NANOSECONDS_PER_NUMBER", "combine_heads", "flat"]

Array = NDArray[Any]
Place = tuple[int, int, int, int, int]

NANOSECONDS_PER_NUMBER = 0.2


def combine_heads(heads: Array, plan: CombinationPlan, out: Array) -> Array:
    """Write ``project(reduce over groups of (head_weights * heads))``, (B, T, M), to ``out``.

    Return what was projected, (B * T, groups * E), for the gradient.
    """
    B, H, T, E = heads.shape
    real = computation_dtype(heads.dtype)
    if heads.size == 0:
        return np.empty((B * T, plan.groups * E), real)
    wide = heads.astype(real, copy=False)
    unweighted = plan.head_weights is None and plan.groups == H
    combined = _side_by_side(wide) if unweighted else None
    if combined is None:
        combined = np.empty((B * T, plan.groups * E), real)
        weigh_groups(wide, plan, combined)
    _project(combined, plan, real, out)
    return combined


def weigh_groups(heads: Array, plan: CombinationPlan, combined: Array) -> None:
    """Write the weighted and reduced heads to ``combined``, (B * T, groups * E), of one dtype."""
    _, H, T, E = heads.shape
    factors = np.asarray(1 if plan.head_weights is None else plan.head_weights, combined.dtype)
    if factors.ndim:
        factors = np.broadcast_to(factors, heads.shape)
    line, place = flat(heads, (heads.itemsize,))
    factor_line, factor_place = flat(factors, (0, factors.itemsize))
    _weigh_rows(
        line,
        place,
        factor_line,
        factor_place,
        H // plan.groups,
        T,
        E,
        plan.reduce == "max",
        combined,
        work=NANOSECONDS_PER_NUMBER * heads.size,
    )


def _side_by_side(heads: Array) -> Array | None:
    """View heads whose rows lie as (H, E) in memory as (B * T, H * E), or None if none do."""
    B, H, T, E = heads.shape
    step_b, step_h, step_t, step_e = heads.strides
    item = heads.dtype.itemsize
    one_row = (E == 1 or step_e == item) and (H == 1 or step_h == E * item)
    if one_row and (B == 1 or T == 1 or step_b == T * step_t):
        return heads.transpose(0, 2, 1, 3).reshape(B * T, H * E)
    return None


def _project(combined: Array, plan: CombinationPlan, real: np.dtype[Any], out: Array) -> None:
    """Write ``combined @ weight + bias`` to ``out``; one product, one rounding."""
    M = out.shape[2]
    rows = out.reshape(-1, M) if out.dtype == real and out.flags.c_contiguous else None
    if plan.weight is not None:
        combined = np.matmul(combined, plan.weight.astype(real, copy=False), out=rows)
    if plan.bias is not None:
        combined = np.add(combined, plan.bias.astype(real, copy=False), out=rows)
    if combined is not rows:
        out[...] = combined.reshape(out.shape)


def flat(array: Array, steps: tuple[int, ...]) -> tuple[Array, Place]:
    """Return the memory that (B, H, T, E) spans as a read-only line, and where its rows lie.

    Place is (start, step_b, step_h, step_t, step_e) in numbers. Rows whose step along E, in
    bytes, is none of ``steps`` are copied.
    """
    if array.ndim == 0:
        line = array.reshape(1)
        line.flags.writeable = False
        return line, (0, 0, 0, 0, 0)
    item = array.itemsize
    if array.strides[3] not in steps and array.shape[3] > 1:
        array = np.ascontiguousarray(array)
    if not array.flags.aligned:  # aligned strides are whole numbers of items
        array = np.ascontiguousarray(array)
    # an axis of size 1 may have any stride
    strides = [s // item if n > 1 else 0 for n, s in zip(array.shape, array.strides, strict=True)]
    reach = [(n - 1) * step for n, step in zip(array.shape, strides, strict=True)]
    start = -sum(span for span in reach if span < 0)
    lowest = array[tuple(slice(None, None, -1 if span < 0 else 1) for span in reach)]
    numbers = start + sum(span for span in reach if span > 0) + 1
    line = np.lib.stride_tricks.as_strided(lowest, (numbers,), (item,), writeable=False)
    return line, (start, strides[0], strides[1], strides[2], strides[3])


@inlined
def _reduced(kept, value, first, largest):
    """Return what a group holds after one more head; a NaN wins the maximum, as in NumPy."""
    if first:
        return value
    if largest:
        return value if value > kept or value != value else kept
    return kept + value


@inlined
def _add_head(group, head, factor, first, largest):
    """Add one head's (E,) line, times one factor, to its group's line."""
    if factor == 0:  # 0 * NaN is NaN: a head of weight 0 is left out, not multiplied
        zero = type(factor)(0)
        for e in range(group.size):
            group[e] = _reduced(group[e], zero, first, largest)
    else:
        for e in range(group.size):
            group[e] = _reduced(group[e], head[e] * factor, first, largest)


@inlined
def _add_head_by_element(group, head, factors, first, largest):
    """Add one head's (E,) line, times a factor for each element, to its group's line."""
    for e in range(group.size):
        factor = factors[e]
        value = head[e] * factor if factor != 0 else type(factor)(0)
        group[e] = _reduced(group[e], value, first, largest)


@kernel
def _weigh_rows(heads, place, factors, factor_place, share, T, E, largest, combined):
    """Write each group of ``share`` heads, weighted and reduced, to ``combined`` (B*T, groups*E).

    ``heads`` and ``factors`` are lines of numbers, their places (start, b, h, t, e); one step
    along e is 1 number, for factors also 0.
    """
    start, step_b, step_h, step_t, _ = place
    factor_start, factor_b, factor_h, factor_t, factor_e = factor_place
    H = combined.shape[1] // E * share
    for row in prange(combined.shape[0]):
        b = row // T
        t = row - b * T
        for h in range(H):
            to = h // share * E
            group = combined[row, to : to + E]
            at = start + b * step_b + h * step_h + t * step_t
            head = heads[at : at + E]
            at = factor_start + b * factor_b + h * factor_h + t * factor_t
            first = h % share == 0
            if factor_e == 0:
                _add_head(group, head, factors[at], first, largest)
            else:
                _add_head_by_element(group, head, factors[at : at + E], first, largest)
