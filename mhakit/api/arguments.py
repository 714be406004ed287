"""What the functions of attention share: their keywords and their types, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mhakit import backends, registry, validation
from mhakit.device import is_device_array
from mhakit.errors import ParameterError
from mhakit.problem import Problem
from mhakit.validation import as_output, empty

__all__ = [
    "Causal",
    "Integers",
    "Layout",
    "ScoreMod",
    "Window",
    "as_problem",
    "by_head",
    "empty_beside",
    "handed_back",
    "output_for",
]

Array = NDArray[Any]
Causal = Literal["top_left", "bottom_right"] | bool | None
Window = tuple[int | None, int | None] | None
Integers = int | Sequence[int] | NDArray[np.integer[Any]]
Layout = Literal["BHTD", "BTHD"]
ScoreMod = Callable[..., Any] | str | None


def as_problem(
    query: object,
    key: object,
    value: object | None,
    *,
    score_mod: ScoreMod = None,
    score_args: tuple[Any, ...] = (),
    **keywords: Any,
) -> tuple[Problem, bool]:
    """Check a call as `mhakit.validation.as_problem` does; ``score_mod`` may be a name."""
    if not isinstance(score_mod, str):
        return validation.as_problem(
            query, key, value, score_mod=score_mod, score_args=score_args, **keywords
        )
    problem, batched = validation.as_problem(query, key, value, **keywords)
    if not isinstance(score_args, tuple):
        raise ParameterError(f"score_args must be a tuple, got {type(score_args).__name__}")
    function, args = registry.make_score_mod(
        score_mod, problem.query.shape[1], problem.real, score_args
    )
    return problem._replace(score_mod=function, score_args=args), batched


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
        return empty_beside(next(iter(inputs.values()), None), laid, dtype, "output")
    return as_output(out, laid, dtype, dict(inputs))


def empty_beside(given: object, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Array:
    """Return a new array where an input lies: on the host or on its device."""
    if is_device_array(given):
        made: Array = backends.select("cuda").empty(shape, dtype, given, what)
        return made
    return empty(shape, dtype, what)


def handed_back(array: Array) -> Array:
    """Return a result as the caller knows it: on a device, an array of the caller's library."""
    if is_device_array(array):
        owner: Array = array.owner
        return owner
    return array
