"""What the functions of attention share: the types of their keywords, and the array they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mhakit.validation import as_output, empty

__all__ = ["Causal", "Integers", "Layout", "Window", "by_head", "output_for"]

Array = NDArray[Any]
Causal = Literal["top_left", "bottom_right"] | bool | None
Window = tuple[int | None, int | None] | None
Integers = int | Sequence[int] | NDArray[np.integer[Any]]
Layout = Literal["BHTD", "BTHD"]


def by_head(array: Array, layout: str, batched: bool) -> Array:
    """View an array of the caller's layout as (B, H, T, …)."""
    array = array if batched else array[None]
    return array if layout == "BHTD" else array.swapaxes(1, 2)


def output_for(
    out: Array | None,
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
    layout: str,
    batched: bool,
    inputs: dict[str, Array | None] | dict[str, Array],
) -> Array:
    """Return the array to write, in the caller's layout: ``out`` once checked, or a new one."""
    B, H, T, width = shape
    laid = (B, H, T, width) if layout == "BHTD" else (B, T, H, width)
    laid = laid if batched else laid[1:]  # type: ignore[assignment]
    if out is None:
        return empty(laid, dtype, "output")
    return as_output(out, laid, dtype, dict(inputs))
