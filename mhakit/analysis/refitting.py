"""Refit a combination on frozen heads: least squares where it is linear, else its own gradients.

What is fitted is the share of the target's variance. Words come in three parts: parameters are
fitted on the first, the ridge and the step to stop at are chosen on the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit import backends
from mhakit.api import combine_vjp
from mhakit.api.asking import Question, ask
from mhakit.api.combining import combine_by
from mhakit.api.parameters import Speaking
from mhakit.api.planning import as_plan, output_shape
from mhakit.errors import MissingExtra, ParameterError
from mhakit.plugin_api import CombinationPlan, HeadCombination

__all__ = ["Refit", "Words", "not_finite", "recovered", "refit"]

Array = NDArray[Any]
Parameters = Mapping[str, Array]

RIDGES = 10.0 ** np.arange(-9, 2)
"""Over the mean eigenvalue of the features' Gram matrix."""

TINY = float(np.finfo(np.float64).tiny)

PATIENCE = 10
"""Steps without a better fit of the second part of the words, after which it is over."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """N words: their heads (1, H, N, E), the layer's input (1, N, M), the output (1, N, M)."""

    heads: Array
    hidden: Array
    target: Array

    def __len__(self) -> int:
        """Return N."""
        return int(self.heads.shape[2])

    def asked(self, strategy: HeadCombination, parameters: Parameters) -> Question:
        """Return what the strategy is asked about these words."""
        M = self.target.shape[2]
        return ask(strategy, self.heads, parameters, model_width=M, hidden_states=self.hidden)


class Refit(NamedTuple):
    """The parameters that were found, and how."""

    parameters: Parameters
    fit: str
    steps: int


def recovered(strategy: HeadCombination, parameters: Parameters, words: Words) -> float:
    """Return the share of the target's variance over these words; -inf where it is no number."""
    output = combine_by(words.asked(strategy, parameters)).astype(np.float64)
    target = words.target.astype(np.float64)
    about_mean = np.square(target - target.mean(axis=1, keepdims=True)).sum()
    share = 1 - np.square(output - target).sum() / max(about_mean, TINY)
    return float(share) if np.isfinite(share) else -np.inf


def refit(
    strategy: HeadCombination, start: Parameters, fitted: Words, choosing: Words, steps: int
) -> Refit:
    """Return the parameters that recover most of ``choosing``, fitted on ``fitted``.

    The projection is solved in closed form; where something else is learned too, gradient steps
    over everything follow, and the projection is solved once more.
    """
    if not start:
        return Refit(start, "nothing to fit", 0)
    solved = _solved(strategy, start, fitted, choosing)
    if solved is not None and _is_linear(strategy, solved, fitted):
        return Refit(solved, "least squares", 0)
    tried = [start if solved is None else solved]
    stepped, taken = _stepped(strategy, tried[0], fitted, choosing, steps)
    again = _solved(strategy, stepped, fitted, choosing)
    tried += [stepped] if again is None else [stepped, again]
    ways = ["gradient steps"] * (taken > 0) + ["least squares"] * (solved is not None)
    best = max(tried, key=lambda each: recovered(strategy, each, choosing))
    return Refit(best, " and ".join(ways) or "nothing better found", taken)


def not_finite() -> ParameterError:
    """Return the error for a combination that makes NaN or inf of finite heads."""
    return ParameterError("what it makes of these heads must be finite, got NaN or inf")


class _Projection(NamedTuple):
    """What a plan projects, (N, groups * E), and the names of the parameters it does so with."""

    features: Array
    weight: str
    bias: str | None


def _projection(strategy: HeadCombination, learned: Parameters, words: Words) -> _Projection | None:
    """Return what the plan projects, or None where ``weight`` is no parameter itself."""
    question = words.asked(strategy, learned)
    with Speaking(strategy, "plan"):
        asked = strategy.plan(question.heads, question.parameters, **question.given)
    if asked is None:
        return None
    plan = as_plan(asked, question)
    weight, bias = _name(plan.weight, question), _name(plan.bias, question)
    if weight is None or (plan.bias is not None and bias is None):
        return None
    bare = CombinationPlan(plan.groups, None, None, plan.head_weights, plan.reduce)
    out = np.empty(output_shape(bare, question.heads.shape), question.real)
    backends.select(None).combine_heads(question.heads, bare, out)
    if not np.isfinite(out).all():
        raise not_finite()
    return _Projection(out[0].astype(np.float64), weight, bias)


def _name(field: Array | None, question: Question) -> str | None:
    """Return the parameter that a field of the plan is."""
    for name, parameter in question.parameters.items():
        if (
            field is not None
            and (field.shape, field.strides) == (parameter.shape, parameter.strides)
            and np.shares_memory(field, parameter)
        ):
            return name
    return None


def _is_linear(strategy: HeadCombination, learned: Parameters, words: Words) -> bool:
    """Whether the projection is all that is learned."""
    projection = _projection(strategy, learned, words)
    return projection is not None and learned.keys() <= {projection.weight, projection.bias}


def _solved(
    strategy: HeadCombination, learned: Parameters, fitted: Words, choosing: Words
) -> Parameters | None:
    """Return the parameters with the projection solved by ridge regression, or None."""
    projection = _projection(strategy, learned, fitted)
    held = _projection(strategy, learned, choosing)
    if projection is None or held is None:
        return None
    R, Y = projection.features, fitted.target[0].astype(np.float64)
    biased = projection.bias is not None
    r, y = (a.mean(axis=0) if biased else np.zeros(a.shape[1]) for a in (R, Y))
    R, Y = R - r, Y - y
    values, vectors = np.linalg.eigh(R.T @ R)
    turned = vectors.T @ (R.T @ Y)
    features, left = (held.features - r) @ vectors, choosing.target[0] - y
    best, least = turned, np.inf
    for ridge in RIDGES * max(values.mean(), TINY):
        solution = turned / (np.maximum(values, 0) + ridge)[:, None]
        off = float(np.square(features @ solution - left).sum())
        if off < least:
            best, least = solution, off
    W = vectors @ best
    found = dict(learned)
    found[projection.weight] = W.astype(learned[projection.weight].dtype)
    if projection.bias is not None:
        found[projection.bias] = (y - r @ W).astype(learned[projection.bias].dtype)
    return found


def _stepped(
    strategy: HeadCombination, start: Parameters, fitted: Words, choosing: Words, steps: int
) -> tuple[Parameters, int]:
    """Return the best parameters on the way of L-BFGS from the start, and the steps it took."""
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise MissingExtra(
            f"refitting needs {error.name}, which is not installed; "
            'pip install "mhakit[models]" brings it'
        ) from error
    scale = float(np.square(fitted.target - fitted.target.mean(axis=1, keepdims=True)).sum())
    best, best_share, taken, since = start, -np.inf, 0, 0

    def squared_error(point: Array) -> tuple[float, Array]:
        learned = _unpacked(point, start)
        output, pullback = combine_vjp(fitted.heads, strategy, learned, hidden_states=fitted.hidden)
        off = output - fitted.target
        gradients = pullback(off * (2 / scale)).parameters
        return float(np.square(off, dtype=np.float64).sum()) / scale, _packed(gradients, start)

    def keep(point: Array) -> None:
        nonlocal best, best_share, taken, since
        taken, since = taken + 1, since + 1
        learned = _unpacked(point, start)
        share = recovered(strategy, learned, choosing)
        if share > best_share + 1e-4:
            since = 0
        if share > best_share:
            best, best_share = learned, share
        if since >= PATIENCE:
            raise StopIteration

    minimize(
        squared_error,
        _packed(start, start),
        jac=True,
        method="L-BFGS-B",
        callback=keep,
        options={"maxiter": steps},
    )
    return best, taken


def _packed(arrays: Parameters, like: Parameters) -> Array:
    return np.concatenate([np.ravel(arrays[name]) for name in like]).astype(np.float64)


def _unpacked(point: Array, like: Parameters) -> Parameters:
    arrays, first = {}, 0
    for name, array in like.items():
        part = point[first : first + array.size]
        arrays[name], first = part.reshape(array.shape).astype(array.dtype), first + array.size
    return arrays
