"""A whole call of attention -> `Problem`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.device import DeviceArray
from mhakit.errors import DTypeError, ParameterError, ShapeError
from mhakit.problem import Problem, computation_dtype
from mhakit.validation.arrays import (
    as_arguments,
    as_float_array,
    as_placed_array,
    broadcast_to,
    require_layout,
    require_one_place,
    require_rank,
    require_same_dtype,
)
from mhakit.validation.visibility import as_band, as_lengths

__all__ = ["as_bias", "as_mask", "as_problem", "as_sinks", "canonical"]

Array = NDArray[Any]


def as_problem(
    query: object,
    key: object,
    value: object | None,
    *,
    mask: object | None = None,
    bias: object | None = None,
    causal: object | None = None,
    query_offset: object | None = None,
    window: object | None = None,
    key_lengths: object | None = None,
    scale: object | None = None,
    softcap: object | None = None,
    sinks: object | None = None,
    score_mod: Callable[..., Any] | None = None,
    score_args: tuple[Any, ...] = (),
    layout: str = "BHTD",
    needs_value: bool = True,
) -> tuple[Problem, bool]:
    """Check a call and return its `Problem` and whether the caller's arrays had a B axis.

    ``needs_value`` is False where only scores or weights are asked for.
    """
    require_layout(layout)
    q, k = as_float_array(query, "query", placed=True), as_float_array(key, "key", placed=True)
    v = as_float_array(value, "value", placed=True) if needs_value else None
    if k.dtype != q.dtype or (v is not None and v.dtype != q.dtype):
        require_same_dtype({"query": q, "key": k} | ({} if v is None else {"value": v}))
    batched = q.ndim != 3
    q = canonical(q, "query", batched, layout, "BHTD")
    k = canonical(k, "key", batched, layout, "BGSD")
    v = None if v is None else canonical(v, "value", batched, layout, "BGSE")
    _check_sizes(q, k, v)
    B, H, T, D = q.shape
    S = k.shape[2]

    mask_array = None if mask is None else as_mask(mask, batched, (B, H, T, S))
    bias_array = None if bias is None else as_bias(bias, batched, (B, H, T, S))
    sinks_array = None
    if sinks is not None:
        sinks_array = as_sinks(sinks, H)
    if DeviceArray in map(type, (q, k, v, mask_array, bias_array, sinks_array)):
        require_one_place(
            {
                "query": q, "key": k, "value": v, "mask": mask_array, "bias": bias_array,
                "sinks": sinks_array,
            }
        )  # fmt: skip
    if score_mod is not None and not callable(score_mod):
        raise ParameterError(
            "score_mod must be a function (score, b, h, t, s, *score_args) -> score, "
            f"or an installed name, got {type(score_mod).__name__}"
        )
    if not isinstance(score_args, tuple):
        raise ParameterError(f"score_args must be a tuple, got {type(score_args).__name__}")
    if score_args and score_mod is None:
        raise ParameterError("score_args must come with a score_mod, got score_args alone")
    score_args = as_arguments(score_args, q)

    lengths = as_lengths(key_lengths, batched, B, S)
    offset, left, right = as_band(
        causal, query_offset, window, lengths, key_lengths is not None, batched, B, T, S
    )
    number = 1.0 / math.sqrt(D) if scale is None else _number(scale, "scale")
    problem = Problem(  # in order: by name it takes as long as all the checks
        q, k, v, mask_array, bias_array, left, right, offset, lengths, number, _softcap(softcap),
        sinks_array, score_mod, score_args, computation_dtype(q.dtype),
    )  # fmt: skip
    return problem, batched


def as_mask(
    mask: object, batched: bool, shape: tuple[int, ...], heads: str = "H"
) -> NDArray[np.bool_]:
    """Check a mask and broadcast it, without a copy, to (B, H, T, S)."""
    array = as_placed_array(mask, "mask")
    if array.dtype != np.bool_:
        raise DTypeError(
            f"mask must be bool, True where a source may be seen, got {array.dtype.name}; "
            "pass numbers that are added to the scores as bias="
        )
    return _per_score(array, "mask", batched, shape, heads)


def as_bias(bias: object, batched: bool, shape: tuple[int, ...], heads: str = "H") -> Array:
    """Check a bias and broadcast it, without a copy, to (B, H, T, S)."""
    return _per_score(as_float_array(bias, "bias", placed=True), "bias", batched, shape, heads)


def as_sinks(sinks: object, H: int) -> Array:
    """Check sinks: floats, one for each query head."""
    array = as_float_array(sinks, "sinks", placed=True)
    if array.shape != (H,):
        raise ShapeError(f"sinks must be (H,) with H={H}, got shape {array.shape}")
    return array


def canonical(array: Array, name: str, batched: bool, layout: str, letters: str) -> Array:
    """View ``array`` in the axis order of ``letters``, with a B axis."""
    given = letters if layout == "BHTD" else letters[0] + letters[2] + letters[1] + letters[3]
    require_rank(array, name, batched, given)
    if not batched:
        array = array[None]
    return array if layout == "BHTD" else array.swapaxes(1, 2)


def _check_sizes(query: Array, key: Array, value: Array | None) -> None:
    B, H, _, D = query.shape
    if H == 0 or D == 0:
        raise ShapeError(f"query must have H and D of at least 1, got H={H} and D={D}")
    if key.shape[0] != B or key.shape[3] != D:
        raise ShapeError(
            f"key must have B={B} and D={D} as query has, got B={key.shape[0]} and D={key.shape[3]}"
        )
    G, S = key.shape[1:3]
    if G == 0 or H % G:
        raise ShapeError(f"key must have G heads that divide H={H} of query, got G={G}")
    if value is None:
        return
    if value.shape[:3] != (B, G, S):
        raise ShapeError(
            f"value must have B={B}, G={G} and S={S} as key has, "
            f"got B={value.shape[0]}, G={value.shape[1]} and S={value.shape[2]}"
        )
    if value.shape[3] == 0:
        raise ShapeError("value must have E of at least 1, got E=0")


def _per_score(array: Array, name: str, batched: bool, shape: tuple[int, ...], heads: str) -> Array:
    """Broadcast a mask or bias, without a copy, to (B, H, T, S)."""
    target = shape if batched else shape[1:]
    letters = f"({'B, ' if batched else ''}{heads}, T, S)"
    try:
        wide = broadcast_to(array, target)
    except ValueError as error:
        raise ShapeError(
            f"{name} must be broadcastable to {letters} = {target}, got shape {array.shape}"
        ) from error
    return wide if batched else wide[None]


def _number(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name} must be a finite number, got {value!r}") from error
    if not math.isfinite(number):
        raise ParameterError(f"{name} must be a finite number, got {number}")
    return number


def _softcap(softcap: object | None) -> float:
    if softcap is None:
        return 0.0
    number = _number(softcap, "softcap")
    if number <= 0:
        raise ParameterError(f"softcap must be greater than 0, or None, got {number}")
    return number
