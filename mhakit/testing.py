"""What a backend is tested with: the grid of shapes, the covering array, the error budget.

The budget sets no tolerance by hand. A result may differ from the exact one by twice the sum
of two errors that nobody can avoid: that of the same formula in plain NumPy in the computation
dtype, and one rounding to the output's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations as pairs_of
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.backends import reference
from mhakit.backends.reference import Arithmetic
from mhakit.problem import computation_dtype
from mhakit.validation import as_indices, as_problem

__all__ = [
    "GRID",
    "Budget",
    "Sizes",
    "allowance",
    "assert_within",
    "budget",
    "covering_array",
    "draw",
]

Array = NDArray[Any]


class Sizes(NamedTuple):
    """One shape of the grid, in the letters of `mhakit.problem`."""

    B: int
    H: int
    G: int
    T: int
    S: int
    D: int
    E: int

    def __str__(self) -> str:
        return "-".join(f"{letter}{size}" for letter, size in self._asdict().items())


GRID: Mapping[str, Sizes] = {
    "all ones": Sizes(1, 1, 1, 1, 1, 1, 1),
    "no two sizes equal": Sizes(2, 6, 3, 5, 7, 4, 9),
    "more targets than sources": Sizes(1, 2, 2, 70, 9, 8, 8),
    "more sources than targets": Sizes(2, 2, 1, 3, 200, 16, 16),
    "one key/value head": Sizes(1, 8, 1, 17, 33, 16, 16),
    "a key/value head for each head": Sizes(1, 5, 5, 33, 65, 12, 12),
    "just past a tile": Sizes(1, 1, 1, 65, 65, 3, 3),
    "just short of a tile": Sizes(1, 1, 1, 63, 127, 16, 5),
    "one target, many sources": Sizes(1, 4, 2, 1, 1300, 64, 64),
    "few targets, odd widths": Sizes(2, 6, 2, 4, 517, 37, 21),
    "wide heads": Sizes(1, 1, 1, 20, 40, 256, 80),
    "wide values": Sizes(1, 2, 1, 10, 70, 1, 128),
    "several tiles of several blocks": Sizes(1, 2, 2, 150, 270, 80, 64),
}
"""Shapes by what is special about them."""


class Budget(NamedTuple):
    """The exact result, and how far from it a result may lie."""

    exact: Array
    allowed: float


def draw(sizes: Sizes, dtype: Any, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return random query, key and value of a shape.

    Examples
    --------
    >>> query, key, value = draw(GRID["no two sizes equal"], np.float32)
    >>> query.shape, key.shape, value.shape
    ((2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 9))
    """
    B, H, G, T, S, D, E = sizes
    rng = np.random.default_rng(seed)
    shapes = ((B, H, T, D), (B, G, S, D), (B, G, S, E))
    query, key, value = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return query, key, value


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


def covering_array(factors: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return rows in which every pair of values of any two factors stands together once or more.

    Examples
    --------
    >>> rows = covering_array({"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1], "d": [0, 1]})
    >>> {(row["c"], row["d"]) for row in rows} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    True
    >>> len(rows) < 3 * 3 * 2 * 2
    True
    """
    names = list(factors)
    sizes = [len(factors[name]) for name in names]
    missing = {
        ((i, x), (j, y))
        for i, j in pairs_of(range(len(names)), 2)
        for x, y in product(range(sizes[i]), range(sizes[j]))
    }
    rng = np.random.default_rng(seed)
    rows = []
    while missing:
        row = dict(min(missing))
        for i in map(int, rng.permutation(len(names))):
            if i not in row:
                gains = [_covered(row, i, x, missing) for x in range(sizes[i])]
                row[i] = int(np.argmax(np.array(gains) + rng.random(sizes[i]) * 0.5))
        missing -= set(pairs_of(sorted(row.items()), 2))
        rows.append({names[i]: factors[names[i]][x] for i, x in sorted(row.items())})
    return rows


def _covered(row: dict[int, int], i: int, x: int, missing: set[Any]) -> int:
    """Count the missing pairs that value x of factor i would complete."""
    return sum(tuple(sorted([(i, x), (j, y)])) in missing for j, y in row.items())


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
