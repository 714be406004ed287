"""How far from the exact result a result may lie.

The budget sets no tolerance by hand. A result may differ from the exact one by twice the sum
of two errors that nobody can avoid: that of the same formula in plain NumPy in the computation
dtype, and one rounding to the output's dtype.

The plain formula's error is a draw, too. Of a few numbers, or where one outlier makes the whole
error, it is now and then zero by luck: whoever draws anew in every run should draw hundreds of
bounded numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.api.arguments import as_problem
from mhakit.backends import reference
from mhakit.backends.reference import Arithmetic
from mhakit.problem import computation_dtype
from mhakit.validation import as_indices

__all__ = ["Budget", "allowance", "assert_within", "budget"]

Array = NDArray[Any]


class Budget(NamedTuple):
    """The exact result, and how far from it a result may lie."""

    exact: Array
    allowed: float


def budget(function: str, *arrays: Any, **keywords: Any) -> tuple[Budget, ...]:
    """Return exact results and allowed errors of one of mhakit's functions.

    Parameters
    ----------
    function : str
        ``"attention"`` (output and lse), ``"attention_scores"``, ``"attention_weights"``,
        ``"softmax"``, ``"weighted_sum"`` or ``"merge_attention"``.
    *arrays, **keywords
        What the function is called with: ndarrays with a B axis, without ``backend``, ``out``
        and ``return_lse``.

    Returns
    -------
    tuple of Budget
        One for each result. For 16-bit input the plain formula runs in float32; float64 input
        is held against NumPy's long double.

    Examples
    --------
    >>> from mhakit.testing import GRID, draw
    >>> query, key, value = draw(GRID["all ones"], np.float32)
    >>> output, lse = budget("attention", query, key, value)
    >>> bool(output.allowed <= 2.4e-7 * abs(value).max())
    True
    """
    dtype = arrays[0][0].dtype if function == "merge_attention" else arrays[0].dtype
    real = computation_dtype(dtype)
    finest = np.longdouble if real == np.float64 else np.float64
    exact = _RUN[function](arrays, keywords, Arithmetic(finest, np.matmul))
    plain = _RUN[function](arrays, keywords, Arithmetic(real, _matmul_in_order))
    with_lse = (dtype, real)
    dtypes = {"attention": with_lse, "merge_attention": with_lse, "attention_scores": (real,)}
    return tuple(
        Budget(truth, allowance(truth, guess, rounded))
        for truth, guess, rounded in zip(exact, plain, dtypes.get(function, (dtype,)), strict=True)
    )


def allowance(exact: Array, plain: Array, dtype: np.dtype[Any]) -> float:
    """Return how far from ``exact`` a result of that dtype may lie, beside a ``plain`` one.

    Examples
    --------
    >>> allowance(np.ones(3), np.ones(3, np.float32), np.dtype(np.float32)) == 2 * 2.0**-24
    True
    """
    mantissa = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}[dtype.name]
    largest = np.max(np.abs(exact[np.isfinite(exact)]), initial=0.0)
    rounding = float(largest) * 2.0**-mantissa + {"float16": 2.0**-25}.get(dtype.name, 0.0)
    return 2 * (_largest(plain.astype(exact.dtype), exact) + rounding)


def assert_within(actual: Array, expected: Budget, what: str = "result") -> None:
    """Raise AssertionError unless ``actual`` lies within the budget, NaN and inf where due."""
    if actual.shape != expected.exact.shape:
        raise AssertionError(f"{what}: shape {actual.shape}, exact {expected.exact.shape}")
    wide = actual.astype(expected.exact.dtype)
    special = ~np.isfinite(expected.exact)
    if not np.array_equal(wide[special], expected.exact[special], equal_nan=True):
        raise AssertionError(f"{what}: NaN or inf where the exact result has none, or the reverse")
    error = _largest(wide, expected.exact)
    if not error <= expected.allowed:
        raise AssertionError(f"{what}: error {error:.3g}, allowed {expected.allowed:.3g}")


def _largest(a: Array, b: Array) -> float:
    finite = np.isfinite(b)
    return float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))


def _matmul_in_order(a: Array, b: Array) -> Array:
    """Multiply matrices one term after the other: the same error on every machine, unlike BLAS."""
    total = np.zeros(
        (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), a.dtype
    )
    for k in range(a.shape[-1]):
        total += a[..., :, k, None] * b[..., None, k, :]
    return total


def _attention(arrays: Any, keywords: Any, arithmetic: Arithmetic) -> tuple[Array, ...]:
    layout = keywords.get("layout", "BHTD")
    problem, _ = as_problem(*arrays, **keywords)
    assert problem.value is not None
    out = np.empty((*problem.query.shape[:3], problem.value.shape[3]), arithmetic.real)
    lse = reference.attend(problem, out, arithmetic=arithmetic)
    return (out if layout == "BHTD" else out.swapaxes(1, 2)), lse


def _scores(arrays: Any, keywords: Any, arithmetic: Arithmetic) -> tuple[Array, ...]:
    problem, _ = as_problem(arrays[0], arrays[1], None, needs_value=False, **keywords)
    out = np.empty((*problem.query.shape[:3], problem.key.shape[2]), arithmetic.real)
    reference.score(problem, out, arithmetic=arithmetic)
    return (out,)


def _weights(arrays: Any, keywords: Any, arithmetic: Arithmetic) -> tuple[Array, ...]:
    chosen = {name: keywords[name] for name in ("heads", "queries") if name in keywords}
    others = {name: value for name, value in keywords.items() if name not in chosen}
    problem, _ = as_problem(arrays[0], arrays[1], None, needs_value=False, **others)
    heads = as_indices(chosen.get("heads"), "heads", problem.query.shape[1], "H")
    queries = as_indices(chosen.get("queries"), "queries", problem.query.shape[2], "T")
    out = np.empty(
        (len(problem.query), len(heads), len(queries), problem.key.shape[2]), arithmetic.real
    )
    reference.weigh(problem, heads, queries, out, arithmetic=arithmetic)
    return (out,)


def _softmax(arrays: Any, keywords: Any, arithmetic: Arithmetic) -> tuple[Array, ...]:
    out = np.empty(arrays[0].shape, arithmetic.real)
    reference.normalize(arrays[0], keywords.get("sinks"), out, arithmetic=arithmetic)
    return (out,)


def _weighted_sum(arrays: Any, keywords: Any, arithmetic: Arithmetic) -> tuple[Array, ...]:
    weights, value = arrays
    out = np.empty((*weights.shape[:3], value.shape[3]), arithmetic.real)
    reference.weigh_values(weights, value, out, arithmetic=arithmetic)
    return (out,)


def _merge(arrays: Any, keywords: Any, arithmetic: Arithmetic) -> tuple[Array, ...]:
    outputs, lses = [part[0] for part in arrays], [part[1] for part in arrays]
    out, lse = np.empty(outputs[0].shape, arithmetic.real), np.empty(lses[0].shape, arithmetic.real)
    reference.merge(outputs, lses, out, lse, arithmetic=arithmetic)
    return out, lse


_RUN = {
    "attention": _attention,
    "attention_scores": _scores,
    "attention_weights": _weights,
    "softmax": _softmax,
    "weighted_sum": _weighted_sum,
    "merge_attention": _merge,
}
