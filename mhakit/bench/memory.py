"""What a call of attention allocates beyond its inputs and its output."""

from __future__ import annotations

import tracemalloc
from typing import Any

from mhakit.bench.attention import dtype_of
from mhakit.bench.rows import Decoding, Prefill
from mhakit.testing import Sizes, draw

__all__ = ["growth", "peak"]

HEADS, WIDTH, CALLS = 4, 64, 15


def peak(sizes: Sizes, dtype: str, **keywords: Any) -> int:
    """Return the most bytes held at once by a call that writes to an output made before.

    Kernels' scratch counts, for Numba allocates by Python's allocator. Of several calls the most:
    in one of them each thread may have let go of its scratch before the next one took its own.
    """
    import mhakit

    query, key, value = draw(sizes, dtype_of(dtype))
    out = mhakit.attention(query, key, value, **keywords)  # compiles, where it must
    mhakit.attention(query, key, value, out=out, **keywords)
    held = []
    tracemalloc.start()
    try:
        for _ in range(CALLS):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            mhakit.attention(query, key, value, out=out, **keywords)
            held.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return max(held)


def growth(work: Prefill | Decoding) -> tuple[float, str]:
    """Return the figure that the row's goal speaks of, and the bytes it comes from."""
    if isinstance(work, Prefill):
        keywords = {"causal": True} if work.causal else {}
        few, many = (
            peak(Sizes(1, HEADS, HEADS, T, T, WIDTH, WIDTH), work.dtype, **keywords) for T in work.T
        )
        figure = (many - few) / (work.T[1] - work.T[0])
    else:
        few, many = (peak(Sizes(1, HEADS, HEADS, 1, S, WIDTH, WIDTH), work.dtype) for S in work.S)
        row = 4 * HEADS * WIDTH  # bytes of what is kept of a target, in float32
        figure = row * (work.S[1] - work.S[0]) / max(many - few, 1)
    return figure, f"{few:,} to {many:,} bytes"
