"""Combine heads: a row (b, t) weighs its H heads and reduces them to groups; BLAS projects.

The weighing kernel sees memory as one flat read-only line and strides, so that it is compiled
once a computation dtype. A row is computed alone, its heads in order: its bits before the
projection do not depend on B, T or the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mhakit.backends.cpu.flags import FLAGS, inlined, part
from mhakit.backends.cpu.launch import kernel
from mhakit.plugin_api import CombinationPlan
from mhakit.problem import computation_dtype

__all__ = ["NANOSECONDS_PER_NUMBER", "combine_heads", "flat"]

Array = NDArray[Any]
Place = tuple[int, int, int, int, int]

NANOSECONDS_PER_NUMBER = 0.05
"""Half of what one thread takes: memory is what it waits for, and threads share that."""


def combine_heads(heads: Array, plan: CombinationPlan, out: Array) -> Array:
    """Write ``project(reduce over groups of (head_weights * heads))``, (B, T, M), to ``out``.

    Return what was projected, (B * T, groups * E), for the gradient of a projection.
    """
    B, H, T, E = heads.shape
    real = computation_dtype(heads.dtype)
    if heads.size == 0:
        return np.empty((B * T, plan.groups * E), real)
    wide = heads.astype(real, copy=False)
    unweighted = plan.head_weights is None and plan.groups == H
    combined = _side_by_side(wide) if unweighted else None
    if combined is None:
        inner = plan.groups * E
        direct = plan.weight is None and out.dtype == real and out.flags.c_contiguous
        if direct:
            room = out.reshape(B * T, inner)
        else:  # one column more, for the bias
            room = np.empty((B * T, inner + _bias_rides(plan, B * T, inner)), real)
        weigh_groups(wide, plan, room)
        combined = room
    _project(combined, plan, real, out)
    return combined[:, : plan.groups * E]


def _bias_rides(plan: CombinationPlan, rows: int, inner: int) -> bool:
    """Whether the bias is one more row of the weight, which spares a pass over the output.

    The weight is copied for it, so it must be smaller than what it spares.
    """
    return plan.weight is not None and plan.bias is not None and 2 * inner < rows


def weigh_groups(heads: Array, plan: CombinationPlan, combined: Array) -> None:
    """Write the weighted and reduced heads to ``combined``, (B * T, groups * E or one more).

    A column more is set to 1.
    """
    _, H, T, E = heads.shape
    factors = np.asarray(1 if plan.head_weights is None else plan.head_weights, combined.dtype)
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
        plan.groups,
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
    weight, bias = plan.weight, plan.bias
    if weight is not None and bias is not None and combined.shape[1] > weight.shape[0]:
        weight, bias = np.concatenate((weight, bias[None]), dtype=real), None
    if weight is not None:
        combined = np.matmul(combined, weight.astype(real, copy=False), out=rows)
    if bias is not None:
        combined = np.add(combined, bias.astype(real, copy=False), out=rows)
    if not np.may_share_memory(combined, out):
        out[...] = combined.reshape(out.shape)


def flat(array: Array, steps: tuple[int, ...]) -> tuple[Array, Place]:
    """Return the memory that (B, H, T, E) spans as a read-only line, and where its rows lie.

    Place is (start, step_b, step_h, step_t, step_e) in numbers; axes in front may be missing, and
    the step along an axis of size 1 is 0, as if it were broadcast. Rows whose step along E, in
    bytes, is none of ``steps`` are copied.
    """
    if array.ndim < 4:
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    item = array.itemsize
    if array.strides[3] not in steps and array.shape[3] > 1:
        array = np.ascontiguousarray(array)
    if not array.flags.aligned:  # aligned strides are whole numbers of items
        array = np.ascontiguousarray(array)
    strides = [s // item if n > 1 else 0 for n, s in zip(array.shape, array.strides, strict=True)]
    start = 0
    if array.flags.c_contiguous:
        line = array.reshape(-1)
    elif (by_word := array.transpose(0, 2, 1, 3)).flags.c_contiguous:
        line = by_word.reshape(-1)
    else:
        reach = [(n - 1) * step for n, step in zip(array.shape, strides, strict=True)]
        start = -sum(span for span in reach if span < 0)
        lowest = array[tuple(slice(None, None, -1 if span < 0 else 1) for span in reach)]
        numbers = start + sum(span for span in reach if span > 0) + 1
        line = np.lib.stride_tricks.as_strided(lowest, (numbers,), (item,))
    line.flags.writeable = False
    return line, (start, strides[0], strides[1], strides[2], strides[3])


@njit(**{**FLAGS, "fastmath": False})  # rounded here: fused or not, the two forms would differ
def _weighed(number, factor):
    """Return their product; 0 * NaN is NaN, so a factor of 0 leaves the number out."""
    return number * factor if factor != 0 else type(factor)(0)


@inlined
def _larger(kept, value):
    """Return the larger; a NaN wins, as in NumPy."""
    return value if value > kept or value != value else kept


# Each loop over e is one expression: with its cases in branches around it LLVM leaves it scalar,
# at half the speed (bench_combination). Indices are unsigned for the same reason: one that may be
# negative is looked at twice.


@part
def _add_head(line, to, heads, at, factor, E, first):
    """Add one head's E numbers, times one factor, to those of its group at ``to``."""
    for e in range(E):
        value = _weighed(heads[at + np.uint64(e)], factor)
        kept = line[to + np.uint64(e)]
        line[to + np.uint64(e)] = value if first else kept + value


@part
def _add_four_heads(line, to, heads, at, step, factors, f_at, f_step, E, first):
    """Add four heads, one after the other, and touch the group once: a third of the time."""
    f0, f1 = factors[f_at], factors[f_at + f_step]
    f2, f3 = factors[f_at + f_step + f_step], factors[f_at + f_step + f_step + f_step]
    for e in range(E):
        from0 = at + np.uint64(e)
        from1 = from0 + step
        from2 = from1 + step
        value = _weighed(heads[from0], f0)
        kept = line[to + np.uint64(e)]
        value = value if first else kept + value
        value = value + _weighed(heads[from1], f1)
        value = value + _weighed(heads[from2], f2)
        line[to + np.uint64(e)] = value + _weighed(heads[from2 + step], f3)


@part
def _add_head_by_element(line, to, heads, at, factors, factor_at, E, first):
    """Add one head's E numbers, each times a factor of its own."""
    for e in range(E):
        value = _weighed(heads[at + np.uint64(e)], factors[factor_at + np.uint64(e)])
        kept = line[to + np.uint64(e)]
        line[to + np.uint64(e)] = value if first else kept + value


@part
def _max_head(line, to, heads, at, factor, E, first):
    """Keep the larger of what a group holds and one head's E numbers times one factor."""
    for e in range(E):
        value = _weighed(heads[at + np.uint64(e)], factor)
        kept = line[to + np.uint64(e)]
        line[to + np.uint64(e)] = value if first else _larger(kept, value)


@part
def _max_head_by_element(line, to, heads, at, factors, factor_at, E, first):
    """Keep the larger of what a group holds and one head's E numbers, each times a factor."""
    for e in range(E):
        value = _weighed(heads[at + np.uint64(e)], factors[factor_at + np.uint64(e)])
        kept = line[to + np.uint64(e)]
        line[to + np.uint64(e)] = value if first else _larger(kept, value)


@kernel
def _weigh_rows(heads, place, factors, factor_place, share, T, E, groups, largest, combined):
    """Write each group of ``share`` heads, weighted and reduced, to ``combined`` (B*T, groups*E).

    Where that has a column more it is set to 1.

    ``heads`` and ``factors`` are lines of numbers, their places (start, b, h, t, e); one step
    along e is 1 number, for factors also 0.
    """
    start, step_b, step_h, step_t, _ = place
    factor_start, factor_b, factor_h, factor_t, factor_e = factor_place
    for row in prange(combined.shape[0]):
        b = row // T
        t = row - b * T
        line = combined[row]
        if line.size > groups * E:
            line[line.size - 1] = 1
        for group in range(groups):
            to = np.uint64(group * E)
            fours = 0 if factor_e or largest else share // 4
            for four in range(fours):
                h = group * share + 4 * four
                at = np.uint64(start + b * step_b + h * step_h + t * step_t)
                f_at = np.uint64(factor_start + b * factor_b + h * factor_h + t * factor_t)
                _add_four_heads(
                    line,
                    to,
                    heads,
                    at,
                    np.uint64(step_h),
                    factors,
                    f_at,
                    np.uint64(factor_h),
                    E,
                    four == 0,
                )
            for i in range(4 * fours, share):
                h = group * share + i
                first = i == 0
                at = np.uint64(start + b * step_b + h * step_h + t * step_t)
                f_at = np.uint64(factor_start + b * factor_b + h * factor_h + t * factor_t)
                if factor_e == 0 and largest:
                    _max_head(line, to, heads, at, factors[f_at], E, first)
                elif factor_e == 0:
                    _add_head(line, to, heads, at, factors[f_at], E, first)
                elif largest:
                    _max_head_by_element(line, to, heads, at, factors, f_at, E, first)
                else:
                    _add_head_by_element(line, to, heads, at, factors, f_at, E, first)
