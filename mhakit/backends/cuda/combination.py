"""Combine heads: one block of threads is one tile of rows (b, t) and one part of M.

The heads are weighed and reduced on the way to the product, so nothing is kept between the two.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda import blocks
from mhakit.backends.cuda.calling import Call
from mhakit.backends.cuda.storage import device, reader, writer
from mhakit.plugin_api import CombinationPlan
from mhakit.problem import computation_dtype

__all__ = ["combination_kernel", "combine_heads"]


def combine_heads(heads: Any, plan: CombinationPlan, out: Any) -> None:
    """Write ``project(reduce over groups of (head_weights * heads))``, (B, T, M), to ``out``."""
    B, _, T, _ = heads.shape
    M, shape = out.shape[2], blocks.SHAPE
    real: Any = computation_dtype(heads.dtype)
    factors = _as_four_axes(plan.head_weights, heads.shape, real)
    weight, bias = plan.weight, plan.bias

    def name(array: Any) -> str | None:
        return None if array is None else array.dtype.name

    with Call(heads, "combine") as call:
        call.run(
            combination_kernel(
                heads.dtype.name, name(factors), name(weight), name(bias), out.dtype.name,
                plan.reduce == "max", real.type, shape,
            ),
            -(-B * T // shape.targets) * -(-M // shape.width),
            (shape.columns, shape.targets),
            call.given(heads, "heads"),
            call.given(factors, "head_weights", (real, 4)),
            plan.groups,
            call.given(weight, "weight", (real, 2)),
            call.given(bias, "bias", (real, 1)),
            call.written(out, "the combined output"),
        )  # fmt: skip


def _as_four_axes(factors: Any, shape: tuple[int, ...], real: np.dtype[Any]) -> Any:
    """Return factors broadcast, without a copy, to (B, H, T, E)."""
    if factors is None:
        return None
    if hasattr(factors, "broadcast_to"):
        return factors.broadcast_to(shape)
    return np.broadcast_to(np.asarray(factors, real), shape)


@cache
def combination_kernel(
    dtype: str,
    factors_dtype: str | None,
    weight_dtype: str | None,
    bias_dtype: str | None,
    out_dtype: str,
    largest: bool,
    real: Any,
    shape: blocks.Shape,
) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, _, COLUMNS, DEPTH, WIDTH = shape
    read, store = reader(dtype, real), writer(out_dtype)
    weighs, read_factor = factors_dtype is not None, reader(factors_dtype or dtype, real)
    projects, read_weight = weight_dtype is not None, reader(weight_dtype or dtype, real)
    adds, read_bias = bias_dtype is not None, reader(bias_dtype or dtype, real)
    row_tile, weight_tile, sum_tile = (TARGETS, DEPTH + 1), (DEPTH, WIDTH), (TARGETS, WIDTH)
    zero = real(0)

    def reduce_group(heads, factors, b, t, group, share, e):
        """Return one number of one group's heads, each times its factor."""
        kept = zero
        for i in range(share):
            h = group * share + i
            value = read(heads[b, h, t, e])
            if weighs:
                factor = read_factor(factors[b, h, t, e])
                value = zero if factor == zero else factor * value  # 0 * NaN is NaN
            if i == 0:
                kept = value
            elif not largest:
                kept += value
            elif value > kept or value != value:  # a NaN wins, as in NumPy
                kept = value
        return kept

    reduced = device(reduce_group)

    def combine(heads, factors, groups, weight, bias, out):
        """Write the combined output (B, T, M)."""
        B, H, T, E = heads.shape
        M, share = out.shape[2], H // groups
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        rows = cuda.shared.array(row_tile, real)
        weights = cuda.shared.array(weight_tile, real)
        sums = cuda.shared.array(sum_tile, real)
        tiles, parts = (B * T + TARGETS - 1) // TARGETS, (M + WIDTH - 1) // WIDTH
        for item in range(cuda.blockIdx.x, tiles * parts, cuda.gridDim.x):
            first_m = item % parts * WIDTH
            line = min(item // parts * TARGETS + row, B * T - 1)
            written = item // parts * TARGETS + row < B * T
            b, t, width = line // T, line % T, min(WIDTH, M - first_m)
            for m in range(column, width, COLUMNS):
                if projects:
                    sums[row, m] = zero
                else:
                    k = first_m + m
                    sums[row, m] = reduced(heads, factors, b, t, k // E, share, k % E)
            if projects:
                for begin in range(0, groups * E, DEPTH):
                    depth = min(DEPTH, groups * E - begin)
                    cuda.syncthreads()  # until the tiles before are read
                    for d in range(column, depth, COLUMNS):
                        k = begin + d
                        rows[row, d] = reduced(heads, factors, b, t, k // E, share, k % E)
                    for d in range(row, depth, TARGETS):
                        for m in range(column, width, COLUMNS):
                            weights[d, m] = read_weight(weight[begin + d, first_m + m])
                    cuda.syncthreads()
                    for m in range(column, width, COLUMNS):
                        part = zero
                        for d in range(depth):
                            part += rows[row, d] * weights[d, m]
                        sums[row, m] += part
            if written:
                for m in range(column, width, COLUMNS):
                    result = sums[row, m]
                    if adds:
                        result += read_bias(bias[first_m + m])
                    out[b, t, first_m + m] = store(result)

    return combine
