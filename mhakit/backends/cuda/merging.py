"""Merge attention over disjoint sources: one row of threads is one row of the output."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda import blocks
from mhakit.backends.cuda.calling import Call
from mhakit.backends.cuda.storage import reader, writer

__all__ = ["merge", "merging_kernel"]


def merge(outputs: list[Any], lses: list[Any], out: Any, out_lse: Any) -> None:
    """Write the merge of attention over disjoint sources: weights are softmax over the parts."""
    B, H, T, _ = out.shape
    shape = blocks.SHAPE
    with Call(outputs[0], "merge_attention") as call:
        call.run(
            merging_kernel(out.dtype.name, out_lse.dtype.type, shape),
            -(-B * H * T // shape.targets),
            (shape.columns, shape.targets),
            tuple(call.given(part, f"output {i}") for i, part in enumerate(outputs)),
            tuple(call.given(part, f"lse {i}") for i, part in enumerate(lses)),
            call.written(out, "output"),
            call.written(out_lse, "lse"),
        )


@cache
def merging_kernel(dtype: str, real: Any, shape: blocks.Shape) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, COLUMNS = shape.targets, shape.columns
    read, store, exp = reader(dtype, real), writer(dtype), blocks.exponential(real)
    nothing, zero = real(-np.inf), real(0)

    def merge_attention(outputs, lses, out, out_lse):
        """Write output (B, H, T, E) and lse (B, H, T) of all parts."""
        B, H, T, E = out.shape
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        for item in range(cuda.blockIdx.x, (B * H * T + TARGETS - 1) // TARGETS, cuda.gridDim.x):
            line = item * TARGETS + row
            if line < B * H * T:
                t, h, b = line % T, line // T % H, line // (T * H)
                top = nothing
                for i in range(len(lses)):
                    if lses[i][b, h, t] > top:
                        top = lses[i][b, h, t]
                base = zero if top == nothing else top
                total = zero
                for i in range(len(lses)):
                    if lses[i][b, h, t] != nothing:
                        total += exp(lses[i][b, h, t] - base)
                for e in range(column, E, COLUMNS):
                    merged = zero
                    for i in range(len(lses)):
                        lse = lses[i][b, h, t]
                        if lse != nothing:  # a part that saw nothing is left out, whatever it holds
                            merged += exp(lse - base) / total * read(outputs[i][b, h, t, e])
                    out[b, h, t, e] = store(merged)
                if column == 0:
                    out_lse[b, h, t] = nothing if total == zero else base + real(math.log(total))

    return merge_attention
