"""The meaning of everything: plain NumPy, the whole score matrix, one step after the other.

Slow and plain on purpose, and it shares no code with the fast backends, so that they can be
held against it. A source that a target may not see never enters the arithmetic: its score is
-inf and its value is left out. It computes in float64 unless told another `Arithmetic`, which
is how tests learn the error of the plain formula in another dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.plugin_api import CombinationPlan
from mhakit.problem import Problem

__all__ = [
    "FLOAT64",
    "Arithmetic",
    "attend",
    "combine_heads",
    "combine_heads_vjp",
    "describe",
    "merge",
    "normalize",
    "score",
    "weigh",
    "weigh_values",
]

Array = NDArray[Any]


class Arithmetic(NamedTuple):
    """The dtype the reference computes in, and how it multiplies matrices."""

    real: Any
    matmul: Callable[[Array, Array], Array]


FLOAT64 = Arithmetic(np.float64, np.matmul)


def attend(
    problem: Problem, out: Array, *, wants_lse: bool = True, arithmetic: Arithmetic = FLOAT64
) -> Array:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), wanted or not."""
    assert problem.value is not None
    scores = _scores(problem, arithmetic)
    weights, lse = _softmax(scores, problem.sinks)
    value = _per_query_head(problem.value.astype(arithmetic.real), problem.query.shape[1])
    out[...] = _weighted_sum(weights, value, scores == -np.inf, arithmetic).astype(out.dtype)
    return lse


def score(problem: Problem, out: Array, *, arithmetic: Arithmetic = FLOAT64) -> None:
    """Write the scores as softmax would receive them, (B, H, T, S), to ``out``."""
    out[...] = _scores(problem, arithmetic)


def weigh(
    problem: Problem,
    heads: NDArray[np.int64],
    queries: NDArray[np.int64],
    out: Array,
    attended: Array | None = None,
    *,
    arithmetic: Arithmetic = FLOAT64,
) -> None:
    """Write the weights of the chosen heads and targets, (B, len, len, S), to ``out``.

    Where ``attended``, (B, len, len, E), is given, write what they sum the values to, too.
    """
    weights, _ = _softmax(_scores(problem, arithmetic), problem.sinks)
    out[...] = weights[:, heads][:, :, queries]
    if attended is not None:
        output = np.empty((*weights.shape[:3], attended.shape[3]), attended.dtype)
        attend(problem, output, arithmetic=arithmetic)
        attended[...] = output[:, heads][:, :, queries]


def normalize(
    scores: Array, sinks: Array | None, out: Array, *, arithmetic: Arithmetic = FLOAT64
) -> None:
    """Write softmax over S of ``scores``, (B, H, T, S), to ``out``."""
    out[...] = _softmax(scores.astype(arithmetic.real), sinks)[0]


def weigh_values(
    weights: Array, value: Array, out: Array, *, arithmetic: Arithmetic = FLOAT64
) -> None:
    """Write the weighted sum of values, (B, H, T, E); a weight of 0 leaves its value out."""
    per_head = _per_query_head(value.astype(arithmetic.real), weights.shape[1])
    out[...] = _weighted_sum(weights.astype(arithmetic.real), per_head, weights == 0, arithmetic)


def merge(
    outputs: list[Array],
    lses: list[Array],
    out: Array,
    out_lse: Array,
    *,
    arithmetic: Arithmetic = FLOAT64,
) -> None:
    """Write the merge of attention over disjoint sources: weights are softmax over the parts."""
    lse = np.stack([part.astype(arithmetic.real) for part in lses], axis=-1)
    parts = np.stack([part.astype(arithmetic.real) for part in outputs], axis=-2)
    weights, total = _softmax(lse, None)
    hidden = (lse == -np.inf)[..., None, :]
    out[...] = _weighted_sum(weights[..., None, :], parts, hidden, arithmetic)[..., 0, :]
    out_lse[...] = total


def project(rows: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write rows (n, K) @ weight (K, N) + bias (N,) to ``out``, (n, N)."""
    projected = rows.astype(np.float64) @ weight.astype(np.float64)
    out[...] = projected if bias is None else projected + bias.astype(np.float64)


def combine_heads(heads: Array, plan: CombinationPlan, out: Array) -> None:
    """Write ``project(reduce over groups of (head_weights * heads))``, (B, T, M), to ``out``."""
    combined = _side_by_side(_grouped(_weighted(heads, plan), plan))
    if plan.weight is not None:
        combined = combined @ plan.weight.astype(np.float64)
    if plan.bias is not None:
        combined = combined + plan.bias.astype(np.float64)
    out[...] = combined


def combine_heads_vjp(
    heads: Array, plan: CombinationPlan, combined: None, d_output: Array, weighs: bool
) -> tuple[Array, CombinationPlan]:
    """Return dL/d(heads), (B, H, T, E), and dL/d(plan) in the heads' dtype.

    ``d_output`` is (B, T, M). The gradient of a maximum goes to the first of the largest heads.
    A head of weight 0 gets 0, and where it is not finite gives its weight 0.
    """
    B, H, T, E = heads.shape
    dY = d_output.astype(np.float64)
    weighted = _weighted(heads, plan)
    d_combined, d_weight = dY, None
    if plan.weight is not None:
        inner = _side_by_side(_grouped(weighted, plan)).reshape(B * T, plan.groups * E)
        d_weight = inner.T @ dY.reshape(B * T, dY.shape[2])
        d_combined = dY @ plan.weight.astype(np.float64).T
    # (B, groups, 1, T, E): what a head gets is what its group gets
    d_group = d_combined.reshape(B, T, plan.groups, 1, E).transpose(0, 2, 3, 1, 4)
    won = np.ones((B, plan.groups, H // plan.groups, T, E), bool)
    if plan.reduce == "max":
        best = weighted.reshape(won.shape).argmax(axis=2, keepdims=True)
        won = np.arange(H // plan.groups)[:, None, None] == best
    d_weighted = np.where(won, d_group, 0.0).reshape(heads.shape)
    d_heads, d_factors = d_weighted, None
    if plan.head_weights is not None:
        factors = np.asarray(plan.head_weights, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            d_heads = np.where(factors == 0, 0.0, d_weighted * factors)
            if weighs:
                seen = np.where((factors == 0) & ~np.isfinite(heads), 0.0, heads)
                product = np.where(won.reshape(heads.shape), seen * d_weighted, 0.0)
                d_factors = _summed_to(product, factors.shape)
    d_bias = None if plan.bias is None else dY.sum(axis=(0, 1))
    d_weight, d_bias, d_factors = (
        None if field is None else field.astype(heads.dtype)
        for field in (d_weight, d_bias, d_factors)
    )
    d_plan = CombinationPlan(plan.groups, d_weight, d_bias, d_factors, plan.reduce)
    return np.array(d_heads, heads.dtype), d_plan


def _weighted(heads: Array, plan: CombinationPlan) -> Array:
    """Return ``head_weights * heads``, (B, H, T, E); a head of weight 0 is left out."""
    weighted = heads.astype(np.float64)
    if plan.head_weights is not None:
        factor = np.broadcast_to(np.asarray(plan.head_weights, dtype=np.float64), heads.shape)
        weighted = np.where(factor == 0, 0.0, weighted) * factor
    return weighted


def _grouped(weighted: Array, plan: CombinationPlan) -> Array:
    """Reduce each run of H / groups heads to one: (B, groups, T, E)."""
    B, H, T, E = weighted.shape
    split = weighted.reshape(B, plan.groups, H // plan.groups, T, E)
    return np.asarray(split.sum(axis=2) if plan.reduce == "sum" else split.max(axis=2))


def _side_by_side(groups: Array) -> Array:
    """Lay (B, groups, T, E) side by side: (B, T, groups * E)."""
    B, count, T, E = groups.shape
    return groups.transpose(0, 2, 1, 3).reshape(B, T, count * E)


def _summed_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which ``shape`` was broadcast."""
    padded = (1,) * (array.ndim - len(shape)) + shape
    axes = tuple(i for i, n in enumerate(padded) if n == 1)
    return np.asarray(array.sum(axis=axes, keepdims=True).reshape(shape))


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, for ``mhakit.explain``."""
    B, H, T, _ = problem.query.shape
    S = problem.key.shape[2]
    return {
        "kernel": "reference.attend",
        "why": "plain NumPy in float64 over the whole score matrix, one step after the other",
        "order": "NumPy's own",
        "threads": 1,
        "lanes": 1,
        "tile": (T, S),
        "tiles_full": int(B * H > 0 and T * S > 0) * B * H,
        "tiles_border": 0,
        "tiles_skipped": 0,
        "scratch_bytes": 8 * 4 * B * H * T * S,
    }


def visible_sources(problem: Problem) -> NDArray[np.bool_]:
    """Return which sources each target may see, (B, H, T, S), by every rule but the bias."""
    B, H, T, _ = problem.query.shape
    S = problem.key.shape[2]
    position = np.arange(T)[None, :, None] + problem.query_offset[:, None, None]
    source = np.arange(S)[None, None, :]
    visible = source < problem.key_lengths[:, None, None]
    visible = visible & (source - position >= -problem.left) & (source - position <= problem.right)
    visible = np.broadcast_to(visible[:, None], (B, H, T, S))
    return visible if problem.mask is None else visible & problem.mask


def _scores(problem: Problem, arithmetic: Arithmetic) -> Array:
    """Scale, softcap, bias, score_mod, mask, in this order: (B, H, T, S)."""
    H, real = problem.query.shape[1], arithmetic.real
    cast = np.dtype(real).type
    visible = visible_sources(problem)
    if problem.bias is not None:
        visible = visible & (problem.bias != -np.inf)
    query = problem.query.astype(real)
    key = _per_query_head(problem.key.astype(real), H)
    with np.errstate(all="ignore"):
        scores = cast(problem.scale) * arithmetic.matmul(query, np.swapaxes(key, -1, -2))
        if problem.softcap:
            scores = cast(problem.softcap) * np.tanh(scores / cast(problem.softcap))
        if problem.bias is not None:
            scores = scores + problem.bias.astype(real)
        if problem.score_mod is not None:
            for b, h, t, s in np.argwhere(visible):
                p = t + problem.query_offset[b]
                scores[b, h, t, s] = problem.score_mod(
                    scores[b, h, t, s], b, h, p, s, *problem.score_args
                )
    return np.asarray(np.where(visible, scores, cast(-np.inf)))


def _softmax(scores: Array, sinks: Array | None) -> tuple[Array, Array]:
    """Return softmax over the last axis, dead rows 0, and the log of each row's sum."""
    rows = scores.shape[:-1]
    top = np.max(scores, axis=-1, initial=-np.inf)
    if sinks is not None:
        sink = np.broadcast_to(sinks.astype(scores.dtype)[:, None], rows)
        top = np.maximum(top, sink)
    base = np.where(top == -np.inf, scores.dtype.type(0), top)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.exp(scores - base[..., None])
        total = weights.sum(axis=-1)
        if sinks is not None:
            total = total + np.exp(sink - base)
        lse = base + np.log(total)
    quotient = weights / np.where(total == 0, scores.dtype.type(1), total)[..., None]
    return np.asarray(quotient), np.asarray(lse)


def _weighted_sum(
    weights: Array, value: Array, hidden: NDArray[np.bool_], arithmetic: Arithmetic
) -> Array:
    """Sum weights * value over the sources that are not hidden: (…, T, S), (…, S, E)."""
    zero = weights.dtype.type(0)
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(value).all():
            return np.asarray(arithmetic.matmul(np.where(hidden, zero, weights), value))
        # 0 * NaN is NaN: a hidden value must be left out, not multiplied by 0
        product = np.where(hidden[..., None], zero, weights[..., None] * value[..., None, :, :])
        return np.asarray(product.sum(axis=-2))


def _per_query_head(array: Array, H: int) -> Array:
    """Repeat each key/value head for the query heads that read it: (B, G, …) -> (B, H, …)."""
    return np.repeat(array, H // array.shape[1], axis=1)
