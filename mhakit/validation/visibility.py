"""Which sources a target may see by position: lengths, offset, alignment and window as one band."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import ParameterError, ShapeError
from mhakit.problem import UNBOUNDED
from mhakit.validation.arrays import as_integers

__all__ = ["as_band", "as_lengths"]


def _per_batch(value: object, name: str, batched: bool, B: int) -> NDArray[np.int64]:
    array = as_integers(value, name)
    rule = f"an int or (B,) ints with B={B}" if batched else "an int, as query has no B"
    if array.ndim == 0:
        return np.full(B, array, dtype=np.int64)
    if not batched or array.shape != (B,):
        raise ShapeError(f"{name} must be {rule}, got shape {array.shape}")
    return array


@lru_cache(maxsize=256)
def _everywhere(B: int, number: int) -> NDArray[np.int64]:
    """Return the same number for each batch: (B,), read-only, as most calls share it."""
    numbers = np.full(B, number, dtype=np.int64)
    numbers.flags.writeable = False
    return numbers


def as_lengths(value: object | None, batched: bool, B: int, S: int) -> NDArray[np.int64]:
    """Return how many sources exist in each batch, (B,), between 0 and S."""
    if value is None:
        return _everywhere(B, S)
    lengths = _per_batch(value, "key_lengths", batched, B)
    for length in lengths:
        if not 0 <= length <= S:
            raise ParameterError(f"key_lengths must lie in [0, S] with S={S}, got {int(length)}")
    return lengths


def as_band(
    causal: object | None,
    query_offset: object | None,
    window: object | None,
    lengths: NDArray[np.int64],
    lengths_given: bool,
    batched: bool,
    B: int,
    T: int,
    S: int,
) -> tuple[NDArray[np.int64], int, int]:
    """Return where target 0 sits, and how far a target sees to its left and right."""
    left, right = _window(window)
    if causal is False:
        causal = None
    if causal not in (None, True, "top_left", "bottom_right") or (
        isinstance(causal, (int, float)) and causal is not True
    ):
        raise ParameterError(
            f"causal must be None, 'top_left', 'bottom_right' or True, got {causal!r}"
        )
    if isinstance(causal, str) and query_offset is not None:
        raise ParameterError(
            f"causal must not name an alignment where query_offset is given, got {causal!r} "
            "and both; "
            "pass causal=True with the offset, or the alignment alone"
        )
    if T != S and query_offset is None:
        way_out = "pass causal='top_left', causal='bottom_right' or a query_offset"
        if causal is True:
            raise ParameterError(
                f"causal=True must come with T = S or a query_offset, got T={T} and S={S}, "
                f"where the two alignments differ; {way_out}"
            )
        if window is not None and causal is None and (left, right) != (UNBOUNDED, UNBOUNDED):
            raise ParameterError(
                f"window must come with T = S, a query_offset or an alignment, "
                f"got T={T} and S={S}; "
                f"{way_out}"
            )
    if causal is not None:
        right = 0
    if query_offset is not None:
        return _per_batch(query_offset, "query_offset", batched, B), left, right
    if causal == "bottom_right":
        return (lengths if lengths_given else _everywhere(B, S)) - T, left, right
    return _everywhere(B, 0), left, right


def _window(window: object | None) -> tuple[int, int]:
    if window is None:
        return UNBOUNDED, UNBOUNDED
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise ParameterError(f"window must be (left, right), each an int or None, got {window!r}")
    sides = []
    for side, name in zip(window, ("left", "right"), strict=True):
        if side is None:
            sides.append(UNBOUNDED)
            continue
        reach = as_integers(side, f"window's {name}")
        if reach.ndim or reach < 0:
            raise ParameterError(
                f"window must reach 0 or more sources to the {name}, or None, got {side!r}"
            )
        sides.append(int(reach))
    return sides[0], sides[1]
