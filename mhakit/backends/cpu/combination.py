"""Combine heads: a row (b, t) weighs its H heads and reduces them to groups, then is projected.

The weighing kernel sees memory as addresses and strides, so that it is compiled once a computation
dtype. A row is computed alone, its heads in order: its bits before the projection do not depend on
B, T or the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.flags import FLAGS, inlined
from mhakit.backends.cpu.integers import lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import end, take
from mhakit.backends.cpu.projection import project
from mhakit.backends.cpu.record import HEAD, address_of, pack, records
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.plugin_api import CombinationPlan
from mhakit.problem import computation_dtype

__all__ = ["NANOSECONDS_PER_NUMBER", "combine_heads", "placed"]

Array = NDArray[Any]

_INTEGERS = (
    *HEAD, "rows", "few", "T", "E", "groups", "share", "largest",
    "heads", "heads_b", "heads_h", "heads_t",
    "factors", "factors_b", "factors_h", "factors_t", "factors_e",
    "out", "out_row",
)  # fmt: skip

WEIGHING = records(_INTEGERS)
"""Heads, their weights and the output as addresses and byte strides.

There are ``rows`` (b, t), ``few`` of them in a work item, of ``groups`` of ``share`` heads each.
"""

NUMBERS = 2**14
"""Numbers in one work item, where rows are short."""

NANOSECONDS_PER_NUMBER = 0.15
"""What one thread takes at best, its numbers in caches."""


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
        rows = _as_rows(out, real) if plan.weight is None else None
        combined = np.empty((B * T, plan.groups * E), real) if rows is None else rows
        weigh_groups(wide, plan, combined)
    _project(combined, plan, out)
    return combined


def weigh_groups(heads: Array, plan: CombinationPlan, combined: Array) -> None:
    """Write the weighted and reduced heads to ``combined``, (B * T, groups * E)."""
    B, H, T, E = heads.shape
    real = combined.dtype
    factors = np.asarray(1 if plan.head_weights is None else plan.head_weights, real)
    heads, place = placed(heads, (real.itemsize,))
    factors, factor_place = placed(factors, (0, real.itemsize))
    few = max(NUMBERS // (H * E), 1)
    calls = pack(
        WEIGHING[real],
        (
            B * T, few, T, E, plan.groups, H // plan.groups, plan.reduce == "max", *place[:4],
            *factor_place, address_of(combined), *combined.strides[:1],
        ),
    )  # fmt: skip
    work = NANOSECONDS_PER_NUMBER * heads.size
    run_in_slices(_run.of(real), calls, -(-B * T // few), work, unknown=True)


def _side_by_side(heads: Array) -> Array | None:
    """View heads whose rows lie as (H, E) in memory as (B * T, H * E), or None if none do."""
    B, H, T, E = heads.shape
    step_b, step_h, step_t, step_e = heads.strides
    item = heads.dtype.itemsize
    one_row = (E == 1 or step_e == item) and (H == 1 or step_h == E * item)
    if one_row and (B == 1 or T == 1 or step_b == T * step_t):
        return heads.transpose(0, 2, 1, 3).reshape(B * T, H * E)
    return None


def _project(combined: Array, plan: CombinationPlan, out: Array) -> None:
    """Write ``combined @ weight + bias`` to ``out``, rounded once."""
    real = combined.dtype
    whole = _as_rows(out, real)
    rows = np.empty((len(combined), out.shape[2]), real) if whole is None else whole
    if plan.weight is not None:
        project(combined, plan.weight, plan.bias, rows)
    elif plan.bias is not None:
        np.add(combined, plan.bias.astype(real, copy=False), out=rows)
    else:
        rows = combined
    if rows is not whole and not np.may_share_memory(rows, out):
        out[...] = rows.reshape(out.shape)


def _as_rows(out: Array, real: np.dtype[Any]) -> Array | None:
    """View an output as rows that a kernel can write, (B * T, M), or None where it cannot."""
    fits = out.dtype == real and out.flags.c_contiguous
    return out.reshape(-1, out.shape[2]) if fits else None


def placed(array: Array, steps: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """Return an array whose rows along E a kernel can read, and (address, b, h, t, e) of it.

    Axes in front of (B, H, T, E) may be missing; the step along an axis of size 1 is 0, as if it
    were broadcast. Rows are copied whose step along E, in bytes, is none of ``steps``.
    """
    if array.ndim < 4:
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
    if array.strides[3] not in steps and array.shape[3] > 1:
        array = np.ascontiguousarray(array)
    if not array.flags.aligned:
        array = np.ascontiguousarray(array)
    strides = array.strides
    if 1 in array.shape:
        strides = tuple(
            [0 if n == 1 else step for n, step in zip(array.shape, strides, strict=True)]
        )
    return array, (address_of(array), *strides)


@njit(**{**FLAGS, "fastmath": False})  # rounded here: fused or not, the two forms would differ
def _weighed(number, factor):
    """Return their product; 0 * NaN is NaN, so a factor of 0 leaves the number out."""
    return number * factor if factor != 0 else type(factor)(0)


@inlined
def _larger(kept, value):
    """Return the larger; a NaN wins, as in NumPy."""
    return value if value > kept or value != value else kept


# Each loop over e is one expression: with its cases in branches around it LLVM leaves it scalar,
# at half the speed (bench_combination).


@inlined
def _add_head(line, head, factor, first):
    """Add one head's (E,) numbers, times one factor, to those of its group."""
    for e in range(line.size):
        value = _weighed(head[e], factor)
        kept = line[e]
        line[e] = value if first else kept + value


@inlined
def _add_four_heads(line, head0, head1, head2, head3, f0, f1, f2, f3, first):
    """Add four heads, one after the other, and touch the group once: a third of the time."""
    for e in range(line.size):
        value = _weighed(head0[e], f0)
        kept = line[e]
        value = value if first else kept + value
        value = value + _weighed(head1[e], f1)
        value = value + _weighed(head2[e], f2)
        line[e] = value + _weighed(head3[e], f3)


@inlined
def _add_head_by_element(line, head, factors, first):
    """Add one head's (E,) numbers, each times a factor of its own."""
    for e in range(line.size):
        value = _weighed(head[e], factors[e])
        kept = line[e]
        line[e] = value if first else kept + value


@inlined
def _max_head(line, head, factor, first):
    """Keep the larger of what a group holds and one head's (E,) numbers times one factor."""
    for e in range(line.size):
        value = _weighed(head[e], factor)
        kept = line[e]
        line[e] = value if first else _larger(kept, value)


@inlined
def _max_head_by_element(line, head, factors, first):
    """Keep the larger of what a group holds and one head's (E,) numbers, each times a factor."""
    for e in range(line.size):
        value = _weighed(head[e], factors[e])
        kept = line[e]
        line[e] = value if first else _larger(kept, value)


def _enter(calls):
    """Be one worker."""
    records = records_at(calls, 1)
    _work(records, records[0].one)


_run = Worker(_enter, WEIGHING)


@inlined
def _work(calls, real):
    """Take work items until none is left."""
    call = calls[0]
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        for row in range(item * call.few, lesser((item + 1) * call.few, call.rows)):
            _weigh_row(call, real, row)
    end(calls)


@inlined
def _weigh_row(call, real, row):
    """Write each group of one row, weighted and reduced."""
    b, t = row // call.T, row % call.T
    E, share, groups = call.E, call.share, call.groups
    by_element, largest = call.factors_e != 0, call.largest != 0
    out = numbers_at(real, call.out + row * call.out_row, groups * E)
    heads = call.heads + b * call.heads_b + t * call.heads_t
    factors = call.factors + b * call.factors_b + t * call.factors_t
    step, factor_step = call.heads_h, call.factors_h
    for group in range(groups):
        line = out[group * E : (group + 1) * E]
        fours = 0 if by_element or largest else share // 4
        for four in range(fours):
            h = group * share + 4 * four
            at, f_at = heads + h * step, factors + h * factor_step
            _add_four_heads(
                line,
                numbers_at(real, at, E),
                numbers_at(real, at + step, E),
                numbers_at(real, at + 2 * step, E),
                numbers_at(real, at + 3 * step, E),
                numbers_at(real, f_at, 1)[0],
                numbers_at(real, f_at + factor_step, 1)[0],
                numbers_at(real, f_at + 2 * factor_step, 1)[0],
                numbers_at(real, f_at + 3 * factor_step, 1)[0],
                four == 0,
            )
        for i in range(4 * fours, share):
            h = group * share + i
            head = numbers_at(real, heads + h * step, E)
            factor = numbers_at(real, factors + h * factor_step, E if by_element else 1)
            if largest and by_element:
                _max_head_by_element(line, head, factor, i == 0)
            elif largest:
                _max_head(line, head, factor[0], i == 0)
            elif by_element:
                _add_head_by_element(line, head, factor, i == 0)
            else:
                _add_head(line, head, factor[0], i == 0)
