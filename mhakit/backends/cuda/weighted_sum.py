"""Weighted sums of values: one block of threads is one tile of targets and one part of E."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import cuda

from mhakit.backends.cuda import blocks
from mhakit.backends.cuda.calling import Call
from mhakit.backends.cuda.storage import reader, writer
from mhakit.problem import computation_dtype

__all__ = ["weigh_values", "weighted_sum_kernel"]


def weigh_values(weights: Any, value: Any, out: Any) -> None:
    """Write the weighted sum of values, (B, H, T, E); a weight of 0 leaves its value out."""
    B, H, T, E = out.shape
    shape = blocks.SHAPE
    real: Any = computation_dtype(out.dtype)
    with Call(weights, "weighted_sum") as call:
        call.run(
            weighted_sum_kernel(out.dtype.name, real.type, shape),
            B * H * -(-T // shape.targets) * -(-E // shape.width),
            (shape.columns, shape.targets),
            call.given(weights, "weights"),
            call.given(value, "value"),
            call.written(out, "output"),
        )


@cache
def weighted_sum_kernel(dtype: str, real: Any, shape: blocks.Shape) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, SOURCES, COLUMNS, _, WIDTH = shape
    read, store, load = reader(dtype, real), writer(dtype), blocks.loader(dtype, real, shape)
    weight_tile, value_tile, sum_tile = (TARGETS, SOURCES + 1), (SOURCES, WIDTH), (TARGETS, WIDTH)
    zero = real(0)

    def weighted_sum(weights, value, out):
        """Write sums (B, H, T, E)."""
        B, H, T, E = out.shape
        S = weights.shape[3]
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        given = cuda.shared.array(weight_tile, real)
        values = cuda.shared.array(value_tile, real)
        sums = cuda.shared.array(sum_tile, real)
        tiles, parts = (T + TARGETS - 1) // TARGETS, (E + WIDTH - 1) // WIDTH
        for item in range(cuda.blockIdx.x, B * H * tiles * parts, cuda.gridDim.x):
            first_e = item % parts * WIDTH
            first_t = item // parts % tiles * TARGETS
            h = item // (parts * tiles) % H
            b = item // (parts * tiles * H)
            width, g = min(WIDTH, E - first_e), h // (H // value.shape[1])
            t = min(first_t + row, T - 1)  # a spare row repeats the last target
            for e in range(column, width, COLUMNS):
                sums[row, e] = zero
            for source in range(0, S, SOURCES):
                count = min(SOURCES, S - source)
                cuda.syncthreads()  # until the block before is read
                for s in range(column, count, COLUMNS):
                    given[row, s] = read(weights[b, h, t, source + s])
                load(value, b, g, source, count, first_e, width, values)
                cuda.syncthreads()
                for e in range(column, width, COLUMNS):
                    part = zero
                    for s in range(count):
                        if given[row, s] != zero:  # 0 * NaN is NaN: it is not multiplied at all
                            part += given[row, s] * values[s, e]
                    sums[row, e] += part
            if first_t + row < T:
                for e in range(column, width, COLUMNS):
                    out[b, h, t, first_e + e] = store(sums[row, e])

    return weighted_sum
