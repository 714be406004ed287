"""What each head of softmax may not see, as one array: where all weights are held in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.problem import Problem
from mhakit.validation import MixedCall

__all__ = ["hidden_from_heads"]


def hidden_from_heads(call: MixedCall) -> NDArray[np.bool_] | None:
    """Return what each head of softmax may not see, broadcastable to (B, heads, T, S), or None."""
    hidden = _hidden_by_position(call.problem)
    if call.mask is not None:
        hidden = _either(hidden, ~_once(call.mask))
    if call.bias is not None:
        banned = _once(call.bias) == -np.inf
        hidden = _either(hidden, banned) if banned.any() else hidden
    return hidden


def _hidden_by_position(problem: Problem) -> NDArray[np.bool_] | None:
    """Return what the band and the lengths hide, (B or 1, 1, T, S), or None."""
    T, S = problem.query.shape[2], problem.key.shape[2]
    if not problem.banded and (problem.key_lengths == S).all():
        return None
    offsets, lengths = problem.query_offset, problem.key_lengths
    if len(offsets) > 1 and (offsets == offsets[0]).all() and (lengths == lengths[0]).all():
        offsets, lengths = offsets[:1], lengths[:1]
    source = np.arange(S)
    distance = source - (np.arange(T)[:, None] + offsets[:, None, None])
    hidden = (distance < -problem.left) | (distance > problem.right)
    hidden |= source >= lengths[:, None, None]
    return np.asarray(hidden[:, None])


def _once(array: NDArray[Any]) -> NDArray[Any]:
    """View an array with each axis that was broadcast taken once."""
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]


def _either(a: NDArray[np.bool_] | None, b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return b if a is None else a | b
