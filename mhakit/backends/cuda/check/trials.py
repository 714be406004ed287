"""What a variant is tried on: fresh random inputs, and the budget their results must keep."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.tiles.segments import ROWS, SEGMENT, Decoding
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.problem import Problem
from mhakit.testing import budget
from mhakit.testing.budget import Budget

__all__ = ["Trial", "bits_of", "dtype_of", "trial_of"]


class Trial(NamedTuple):
    """A problem for one variant, and what it must come to."""

    problem: Problem
    output: Budget
    lse: Budget


def trial_of(variant: Variant, rng: np.random.Generator) -> Trial:
    """Draw a problem that ``variant`` takes, with borders of every kind."""
    B, H, G, S = 2, 2, 1, int(rng.integers(130, 200))
    T = int(rng.integers(129, 160) if variant.rows == 128 else rng.integers(33, 64))
    left, offsets = int(rng.integers(20, 90)), rng.integers(-20, 60, B)
    if isinstance(variant, Decoding):  # of one segment, or of several
        S, T = int(rng.integers(130, 3 * SEGMENT)), int(rng.integers(1, ROWS * G // H + 1))
        left, offsets = int(rng.integers(S // 2, S)), rng.integers(S // 2, S, B)
    shapes = ((B, H, T, variant.D), (B, G, S, variant.D), (B, G, S, variant.E))
    dtype = dtype_of(variant.dtype)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    keywords: dict[str, Any] = {
        "window": (left, int(rng.integers(0, 30))),
        "query_offset": [int(x) for x in offsets],
        "key_lengths": [S, int(rng.integers(40, S))],
        "sinks": rng.standard_normal(H).astype(np.float32),
    }
    if variant.softcap:
        keywords["softcap"] = 3.0
    if variant.bias:
        keywords["bias"] = rng.standard_normal((B, 1, T, S)).astype(np.float32)
    if variant.mask:
        keywords["mask"] = rng.random((B, H, T, S)) < 0.8
    if variant.score_mod:
        keywords |= {"score_mod": _sloped, "score_args": (np.float32(0.01),)}
    problem, _ = as_problem(*arrays, **keywords)
    output, lse = budget("attention", *arrays, **keywords)
    return Trial(problem, output, lse)


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype of that name."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _sloped(score: Any, b: Any, h: Any, t: Any, s: Any, slope: Any) -> Any:
    return score + slope * type(score)(t - s)


def bits_of(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as integers of its width, so that NaN equals NaN."""
    return array.view(f"u{array.itemsize}")
