"""The meaning of everything: float64 NumPy, the whole score matrix, one step after the other.

Slow and plain on purpose, and it shares no code with the fast backends, so that they can be
held against it. A source that a target may not see never enters the arithmetic: its key and
value are replaced by 0 before they are used, and its score is -inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.plugin_api import CombinationPlan
from mhakit.problem import Problem

__all__ = [
    "attend",
    "combine_heads",
    "describe",
    "merge",
    "normalize",
    "score",
    "weigh",
    "weigh_values",
]

Array = NDArray[Any]


def attend(problem: Problem, out: Array) -> NDArray[np.float64]:
    """Write attention's output, (B, H, T, E), to ``out`` and return lse, (B, H, T)."""
    assert problem.value is not None
    scores = _scores(problem)
    sinks = None if problem.sinks is None else problem.sinks.astype(np.float64)
    weights, lse = _softmax(scores, sinks)
    value = _per_query_head(problem.value.astype(np.float64), problem.query.shape[1])
    out[...] = _weighted_sum(weights, value, scores == -np.inf).astype(out.dtype)
    return lse


def score(problem: Problem, out: Array) -> None:
    """Write the scores as softmax would receive them, (B, H, T, S), to ``out``."""
    out[...] = _scores(problem)


def weigh(
    problem: Problem, heads: NDArray[np.int64], queries: NDArray[np.int64], out: Array
) -> None:
    """Write the weights of the chosen heads and targets, (B, len, len, S), to ``out``."""
    sinks = None if problem.sinks is None else problem.sinks.astype(np.float64)
    weights, _ = _softmax(_scores(problem), sinks)
    out[...] = weights[:, heads][:, :, queries]


def normalize(scores: Array, sinks: Array | None, out: Array) -> None:
    """Write softmax over S of ``scores``, (B, H, T, S), to ``out``."""
    sinks64 = None if sinks is None else sinks.astype(np.float64)
    out[...] = _softmax(scores.astype(np.float64), sinks64)[0]


def weigh_values(weights: Array, value: Array, out: Array) -> None:
    """Write the weighted sum of values, (B, H, T, E); a weight of 0 leaves its value out."""
    per_head = _per_query_head(value.astype(np.float64), weights.shape[1])
    out[...] = _weighted_sum(weights.astype(np.float64), per_head, weights == 0)


def merge(outputs: list[Array], lses: list[Array], out: Array, out_lse: Array) -> None:
    """Write the merge of attention over disjoint sources: weights are softmax over the parts."""
    lse = np.stack([part.astype(np.float64) for part in lses], axis=-1)
    parts = np.stack([part.astype(np.float64) for part in outputs], axis=-2)
    weights, total = _softmax(lse, None)
    out[...] = _weighted_sum(weights[..., None, :], parts, (lse == -np.inf)[..., None, :])[..., 0, :]
    out_lse[...] = total


def combine_heads(heads: Array, plan: CombinationPlan, out: Array) -> None:
    """Write ``project(reduce over groups of (head_weights * heads))``, (B, T, M), to ``out``."""
    B, H, T, E = heads.shape
    weighted = heads.astype(np.float64)
    if plan.head_weights is not None:
        factor = np.broadcast_to(np.asarray(plan.head_weights, dtype=np.float64), heads.shape)
        weighted = np.where(factor == 0, 0.0, weighted) * factor
    grouped = weighted.reshape(B, plan.groups, H // plan.groups, T, E)
    reduced = grouped.sum(axis=2) if plan.reduce == "sum" else grouped.max(axis=2)
    combined = reduced.transpose(0, 2, 1, 3).reshape(B, T, plan.groups * E)
    if plan.weight is not None:
        combined = combined @ plan.weight.astype(np.float64)
    if plan.bias is not None:
        combined = combined + plan.bias.astype(np.float64)
    out[...] = combined


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


def _scores(problem: Problem) -> NDArray[np.float64]:
    """Scale, softcap, bias, score_mod, mask, in this order: (B, H, T, S) in float64."""
    H = problem.query.shape[1]
    visible = visible_sources(problem)
    query = problem.query.astype(np.float64)
    key = _per_query_head(problem.key.astype(np.float64), H)
    with np.errstate(all="ignore"):
        scores = problem.scale * (query @ np.swapaxes(key, -1, -2))
        if problem.softcap:
            scores = problem.softcap * np.tanh(scores / problem.softcap)
        if problem.bias is not None:
            scores = scores + problem.bias.astype(np.float64)
        if problem.score_mod is not None:
            for b, h, t, s in np.argwhere(visible):
                p = t + problem.query_offset[b]
                scores[b, h, t, s] = problem.score_mod(
                    scores[b, h, t, s], b, h, p, s, *problem.score_args
                )
    return np.where(visible, scores, -np.inf)


def _softmax(
    scores: NDArray[np.float64], sinks: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return softmax over the last axis, dead rows 0, and the log of each row's sum."""
    rows = scores.shape[:-1]
    top = np.max(scores, axis=-1, initial=-np.inf)
    if sinks is not None:
        sink = np.broadcast_to(sinks[:, None], rows)
        top = np.maximum(top, sink)
    base = np.where(top == -np.inf, 0.0, top)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.exp(scores - base[..., None])
        total = weights.sum(axis=-1)
        if sinks is not None:
            total = total + np.exp(sink - base)
        lse = base + np.log(total)
    return weights / np.where(total == 0, 1.0, total)[..., None], lse


def _weighted_sum(
    weights: NDArray[np.float64], value: NDArray[np.float64], hidden: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sum weights * value over the sources that are not hidden: (…, T, S), (…, S, E)."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(value).all():
            return np.asarray(np.where(hidden, 0.0, weights) @ value)
        # 0 * NaN is NaN: a hidden value must be left out, not multiplied by 0
        product = np.where(hidden[..., None], 0.0, weights[..., None] * value[..., None, :, :])
        return np.asarray(product.sum(axis=-2))


def _per_query_head(array: NDArray[np.float64], H: int) -> NDArray[np.float64]:
    """Repeat each key/value head for the query heads that read it: (B, G, …) -> (B, H, …)."""
    return np.repeat(array, H // array.shape[1], axis=1)
