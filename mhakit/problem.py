"""What the caller asked, checked, as arrays and numbers that a backend reads.

The letters, once and for everything (docstrings, errors, kernels). Sizes are capitals, the
index over a size is the same letter small, arrays are words (``query``, ``heads``).

==  ==================================================================================
B   batch
H   query heads
G   key/value heads; H is a multiple of G, query head h reads key/value head h // (H // G)
T   targets (queries)
S   sources (keys)
D   query and key width
E   value width
M   model width
==  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ScoreMod = Callable[..., Any]

UNBOUNDED = 2**61
"""A window side without bound: larger than any distance between a target and a source."""


class Problem(NamedTuple):
    """One call of attention; every field has passed `mhakit.validation`.

    Arrays are views of the caller's in the axis order below, whatever the layout asked for.
    Visibility is three things and no more: the band (``query_offset``, ``left``, ``right``),
    ``key_lengths``, and ``mask``. Target t sits at position p = t + query_offset[b] and sees
    source s where p - left <= s <= p + right, 0 <= s < key_lengths[b] and mask[b, h, t, s].
    """

    query: Array
    """(B, H, T, D)"""
    key: Array
    """(B, G, S, D)"""
    value: Array | None
    """(B, G, S, E); None where only scores or weights are asked for"""
    mask: Array | None
    """bool (B, H, T, S), strides 0 where it was broadcast; True may be seen"""
    bias: Array | None
    """float (B, H, T, S), strides 0 where it was broadcast"""
    left: int
    """sources seen to the left of a target's position, or UNBOUNDED"""
    right: int
    """sources seen to the right of it, 0 where causal, or UNBOUNDED"""
    query_offset: NDArray[np.int64]
    """(B,) source position of target 0"""
    key_lengths: NDArray[np.int64]
    """(B,) sources that exist"""
    scale: float
    softcap: float
    """0 where there is none"""
    sinks: Array | None
    """float (H,)"""
    score_mod: ScoreMod | None
    score_args: tuple[Any, ...]
    real: np.dtype[Any]
    """the computation dtype, float32 or float64"""

    @property
    def banded(self) -> bool:
        """Whether a causal rule or a window hides anything at all."""
        return self.left < UNBOUNDED or self.right < UNBOUNDED


@cache
def computation_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float64 computes in float64; float32, float16 and bfloat16 compute in float32."""
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
