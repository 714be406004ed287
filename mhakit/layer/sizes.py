"""The sizes and the dtype a layer is asked for, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from mhakit.errors import DTypeError, ParameterError

__all__ = ["as_dtype", "as_size", "as_sizes"]

FLOATS = ("float64", "float32", "float16", "bfloat16")


def as_sizes(
    model_width: object,
    num_heads: object,
    num_kv_heads: object | None,
    head_width: object | None,
    value_width: object | None,
) -> tuple[int, int, int, int, int]:
    """Return M, H, G, D, E, with what was left out filled in."""
    M = as_size(model_width, "model_width")
    H = as_size(num_heads, "num_heads")
    G = H if num_kv_heads is None else as_size(num_kv_heads, "num_kv_heads")
    if H % G:
        raise ParameterError(f"num_kv_heads must divide num_heads={H}, got {G}")
    if head_width is None and M % H:
        raise ParameterError(
            f"model_width must be a multiple of num_heads={H} where no head_width is given, "
            f"got {M}; pass head_width"
        )
    D = M // H if head_width is None else as_size(head_width, "head_width")
    E = D if value_width is None else as_size(value_width, "value_width")
    return M, H, G, D, E


def as_dtype(dtype: object) -> np.dtype[Any]:
    """Return the dtype of a layer: one of the four floats."""
    rule = "dtype must be float64, float32, float16 or ml_dtypes.bfloat16"
    try:
        result: np.dtype[Any] = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError as error:
        raise DTypeError(f"{rule}, got {dtype!r}") from error
    # NumPy reads None as float64
    if dtype is None or result.name not in FLOATS or not result.isnative:
        raise DTypeError(f"{rule}, got {dtype!r}")
    return result


def as_size(value: object, name: str) -> int:
    """Return a size as an int."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ParameterError(f"{name} must be an int of at least 1, got {value!r}")
    return int(value)
