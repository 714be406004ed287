"""The refitting of a combination's parameters: least squares, gradient steps, the ridge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mhakit
from mhakit.analysis.refitting import Words, recovered, refit
from mhakit.registry import find, resolve

H, E, M = 4, 3, 8


def words(count=200, seed=2):
    rng = np.random.default_rng(seed)
    shapes = (1, H, count, E), (1, count, M), (1, count, M)
    return Words(*(rng.standard_normal(shape) for shape in shapes))


def drawn(strategy, seed=3):
    rng = np.random.default_rng(seed)
    specs = strategy.parameters(mhakit.plugin_api.HeadShape(H, E, M))
    return {name: rng.standard_normal(spec.shape) for name, spec in specs.items()}


def planted(strategy, parameters, given):
    """Return the words with what the strategy makes of them as their target."""
    return replace(
        given,
        target=mhakit.combine(given.heads, strategy, parameters, hidden_states=given.hidden),
    )


@pytest.mark.parametrize("name", ["average", "max", "concat_project"])
def test_what_is_linear_in_its_parameters_is_solved_as_least_squares_solve_it(name):
    given, strategy = words(), resolve(name)
    identity = {"weight": np.eye(E * (H if name == "concat_project" else 1)), "bias": 0 * np.eye(1)}
    identity["bias"] = np.zeros(len(identity["weight"]))
    features = mhakit.combine(given.heads, strategy, identity)[0]
    features = np.column_stack([features, np.ones(len(given))])
    exact, *_ = np.linalg.lstsq(features, given.target[0])
    expected = recovered(strategy, {"weight": exact[:-1], "bias": exact[-1]}, given)
    found = refit(strategy, drawn(strategy), given, given, steps=1)
    assert (found.fit, found.steps) == ("least squares", 0)
    assert recovered(strategy, found.parameters, given) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["weighted_sum", "gated_heads", "bilinear", "hadamard"])
def test_what_is_not_takes_gradient_steps_to_what_was_planted(name):
    strategy = find(name)(rank=2) if name == "bilinear" else resolve(name)
    given = words()
    if name == "hadamard":
        given = replace(given, heads=given.heads[..., :2], hidden=given.hidden)
        own = {"gain": np.arange(1.0, 9.0), "bias": np.ones(8)}
    else:
        own = drawn(strategy)
    given = planted(strategy, own, given)
    rng = np.random.default_rng(4)
    start = {n: a + 0.3 * rng.standard_normal(a.shape) for n, a in own.items()}
    found = refit(strategy, start, given, given, steps=200)
    assert found.steps > 0
    assert found.fit.startswith("gradient steps")
    assert recovered(strategy, found.parameters, given) > 0.99


def test_the_steps_follow_the_strategys_own_backward():
    class Backwards(find("bilinear")):
        def backward(self, d_output, residuals, parameters):
            d_heads, d_hidden, gradients = super().backward(d_output, residuals, parameters)
            return d_heads, d_hidden, {name: -part for name, part in gradients.items()}

    own = drawn(find("bilinear")(rank=2))
    start = {name: array + 0.3 for name, array in own.items()}
    given = planted(find("bilinear")(rank=2), own, words())
    found = refit(Backwards(rank=2), start, given, given, steps=50)
    assert recovered(Backwards(rank=2), found.parameters, given) < 0.9


def test_the_ridge_is_chosen_on_other_words_than_it_is_fitted_on():
    strategy = resolve("concat_project")
    few, others, rest = (words(count, seed) for count, seed in ((16, 5), (400, 6), (400, 7)))
    parts = [
        replace(part, target=part.heads[:, 0, :, :1] + part.target * 0.5)
        for part in (few, others, rest)
    ]
    greedy = refit(strategy, drawn(strategy), parts[0], parts[0], steps=1).parameters
    careful = refit(strategy, drawn(strategy), parts[0], parts[1], steps=1).parameters
    assert recovered(strategy, greedy, parts[0]) > recovered(strategy, careful, parts[0])
    assert recovered(strategy, careful, parts[2]) > recovered(strategy, greedy, parts[2])
