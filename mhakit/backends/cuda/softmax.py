"""Softmax over sources: one row of threads is one row of scores."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda import blocks
from mhakit.backends.cuda.calling import Call
from mhakit.backends.cuda.storage import reader, writer
from mhakit.problem import computation_dtype

__all__ = ["normalize", "softmax_kernel"]


def normalize(scores: Any, sinks: Any, out: Any) -> None:
    """Write softmax over S of ``scores``, (B, H, T, S), to ``out``, which may be ``scores``."""
    B, H, T, _ = scores.shape
    shape = blocks.SHAPE
    real: Any = computation_dtype(out.dtype)
    with Call(scores, "softmax") as call:
        call.run(
            softmax_kernel(
                scores.dtype.name, out.dtype.name, None if sinks is None else sinks.dtype.name,
                real.type, shape,
            ),
            -(-B * H * T // shape.targets),
            (shape.columns, shape.targets),
            call.given(scores, "scores"),
            call.given(sinks, "sinks", (real, 1)),
            call.written(out, "weights"),
        )  # fmt: skip


@cache
def softmax_kernel(
    dtype: str, out_dtype: str, sinks_dtype: str | None, real: Any, shape: blocks.Shape
) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, SOURCES, COLUMNS, *_ = shape
    read, store, exp = reader(dtype, real), writer(out_dtype), blocks.exponential(real)
    has_sinks, read_sink = sinks_dtype is not None, reader(sinks_dtype or dtype, real)
    tile, nothing, zero = (TARGETS, COLUMNS + 1), real(-np.inf), real(0)

    def softmax(scores, sinks, out):
        """Write weights (B, H, T, S)."""
        B, H, T, S = out.shape
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        shares = cuda.shared.array(tile, real)
        for item in range(cuda.blockIdx.x, (B * H * T + TARGETS - 1) // TARGETS, cuda.gridDim.x):
            line = min(item * TARGETS + row, B * H * T - 1)
            written = item * TARGETS + row < B * H * T
            t, h, b = line % T, line // T % H, line // (T * H)

            sink = nothing
            if has_sinks:
                sink = read_sink(sinks[h])
            top = nothing
            for s in range(column, S, COLUMNS):
                score = read(scores[b, h, t, s])
                if score > top:
                    top = score
            cuda.syncthreads()  # until the sums of the row before are read
            shares[row, column] = top
            cuda.syncthreads()
            top = sink
            for other in range(COLUMNS):
                if shares[row, other] > top:
                    top = shares[row, other]
            base = zero if top == nothing else top

            share = zero
            for source in range(0, S, SOURCES):  # short sums, which round less than one long one
                part = zero
                for s in range(source + column, min(source + SOURCES, S), COLUMNS):
                    part += exp(read(scores[b, h, t, s]) - base)
                share += part
            cuda.syncthreads()
            shares[row, column] = share
            cuda.syncthreads()
            total = exp(sink - base)
            for other in range(COLUMNS):
                total += shares[row, other]

            if written:
                for s in range(column, S, COLUMNS):
                    weight = zero
                    if total != zero:
                        weight = exp(read(scores[b, h, t, s]) - base) / total
                    out[b, h, t, s] = store(weight)

    return softmax
