"""What a tensor core makes of TF32, in NumPy: it cuts off where it adds.

As an A100 rounds, the coarsest of those that have TF32 (Fasi and others, Numerical behavior of
NVIDIA tensor cores, https://peerj.com/articles/cs-330, on alignment and truncation): four products
and a sum are aligned to the largest, of each is kept one bit more than float32 has, and what they
come to is cut off to float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["multiply_tf32"]

Array = NDArray[Any]
_KEPT = np.uint32(0xFFFFE000)
_MANTISSA = np.uint64((1 << 29) - 1)
"""What float64 has that float32 has not."""


def multiply_tf32(a: list[Array], b: list[Array], c: list[Array]) -> list[Array]:
    """Return a (16, 8) @ b (8, 8) + c (16, 8) of each warp, fragments as a lane holds them."""
    first, second, third, fourth = (_matrix(words) for words in a)
    left = np.concatenate(
        [np.concatenate([first, third], -1), np.concatenate([second, fourth], -1)], -2
    )  # warp, row, k
    right = np.concatenate([_matrix(words) for words in b], -1)  # warp, column, k
    halves = np.stack(c, -1).reshape(-1, 8, 4, 2, 2)  # warp, row, lane of four, half, column
    total = halves.transpose(0, 3, 1, 2, 4).reshape(-1, 16, 8).astype(np.float64)
    with np.errstate(all="ignore"):
        for k in (0, 4):
            terms = left[:, :, None, k : k + 4] * right[:, None, :, k : k + 4]
            total = _cut_off_sum(np.concatenate([terms, total[..., None]], -1))
        rows = total.astype(np.float32).reshape(-1, 2, 8, 4, 2)
    return [np.ascontiguousarray(rows[:, i // 2, :, :, i % 2]).reshape(-1) for i in range(4)]


def _matrix(words: Array) -> Array:
    """Return the 8 x 4 matrix of each warp that a word of each lane makes up, as float64."""
    kept = np.ascontiguousarray(words) & _KEPT
    return kept.view(np.float32).astype(np.float64).reshape(-1, 8, 4)


def _cut_off_sum(terms: Array) -> Array:
    """Return the sum over the last axis, float32 held in float64."""
    finite = np.where(np.isfinite(terms), terms, 0.0)
    _, exponent = np.frexp(np.abs(finite).max(axis=-1, keepdims=True))
    quantum = np.ldexp(1.0, np.maximum(exponent - 25, -149))
    total = (np.trunc(finite / quantum) * quantum).sum(axis=-1)
    special = terms.sum(axis=-1)
    cut_off = (total.view(np.uint64) & ~_MANTISSA).view(np.float64)
    return np.asarray(np.where(np.isfinite(special), cut_off, special))
