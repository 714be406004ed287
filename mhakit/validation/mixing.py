"""A call of attention whose heads are mixed -> what each step of it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import ShapeError
from mhakit.plugin_api import MixingShape
from mhakit.problem import Problem
from mhakit.validation.arrays import as_float_array, as_size, require_same_dtype
from mhakit.validation.attention import as_bias, as_mask, as_problem, canonical

__all__ = ["MixedCall", "as_mixed_call"]

Array = NDArray[Any]


class MixedCall(NamedTuple):
    """One call of mixed attention, checked; letters as in `mhakit.problem`."""

    problem: Problem
    """query, key and the band; no value, mask or bias, as they go by other heads"""
    value: Array
    """(B, value heads or a divisor, S, E)"""
    mask: NDArray[np.bool_] | None
    """(B, softmax heads, T, S)"""
    bias: Array | None
    """(B, softmax heads, T, S)"""
    shape: MixingShape
    hidden_states: Array | None
    """(B, T, M)"""
    source_states: Array | None
    """(B, S, M)"""
    batched: bool


def as_mixed_call(
    query: object,
    key: object,
    value: object,
    *,
    softmax_heads: object,
    value_heads: object,
    hidden_states: object,
    source_states: object,
    mask: object,
    bias: object,
    layout: str,
    **band: Any,
) -> MixedCall:
    """Check a call; ``band`` is what `as_problem` takes of position and scale.

    Plugins mix in NumPy, so all its arrays are in host memory.
    """
    query, key = as_float_array(query, "query"), as_float_array(key, "key")
    problem, batched = as_problem(query, key, None, needs_value=False, layout=layout, **band)
    B, H, T, _ = problem.query.shape
    S = problem.key.shape[2]
    given = as_float_array(value, "value")
    require_same_dtype({"query": problem.query, "value": given})
    v = canonical(given, "value", batched, layout, "BGSE")
    if v.shape[0] != B or v.shape[2] != S or 0 in (v.shape[1], v.shape[3]):
        raise ShapeError(
            f"value must have B={B} and S={S} as key has, and heads and E of at least 1, "
            f"got B={v.shape[0]}, S={v.shape[2]}, {v.shape[1]} heads and E={v.shape[3]}"
        )
    softmax = H if softmax_heads is None else as_size(softmax_heads, "softmax_heads")
    values = v.shape[1] if value_heads is None else as_size(value_heads, "value_heads")
    if values % v.shape[1]:
        raise ShapeError(
            f"value must have heads that divide value_heads={values}, got {v.shape[1]} heads"
        )
    hidden = _states(hidden_states, "hidden_states", batched, B, T, "T")
    sources = _states(source_states, "source_states", batched, B, S, "S")
    if sources is None and T == S:
        sources = hidden
    if hidden is not None and sources is not None and hidden.shape[2] != sources.shape[2]:
        raise ShapeError(
            f"source_states must have M={hidden.shape[2]} as hidden_states has, "
            f"got M={sources.shape[2]}"
        )
    per_score = (B, softmax, T, S)
    return MixedCall(
        problem,
        v,
        None if mask is None else as_mask(mask, batched, per_score, "softmax_heads"),
        None if bias is None else as_bias(bias, batched, per_score, "softmax_heads"),
        MixingShape(H, softmax, values, None if hidden is None else hidden.shape[2]),
        hidden,
        sources,
        batched,
    )


def _states(
    value: object, name: str, batched: bool, B: int, length: int, letter: str
) -> Array | None:
    """Return a layer's input at targets or sources as (B, T or S, M), or None."""
    if value is None:
        return None
    array = as_float_array(value, name)
    letters = f"(B, {letter}, M)" if batched else f"({letter}, M)"
    wanted = (B, length) if batched else (length,)
    if array.ndim != len(wanted) + 1 or array.shape[:-1] != wanted or array.shape[-1] == 0:
        sizes = f"B={B} and {letter}={length}" if batched else f"{letter}={length}"
        raise ShapeError(
            f"{name} must be {letters} with {sizes} and M of at least 1, got shape {array.shape}"
        )
    return array if batched else array[None]
