"""Each combination of the catalogue does what its formula says, alone, folded and in a layer."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.budgets import budget_of
from material.catalogue import CASES, E, H, combined, concat, drawn, shape_of
from mhakit.testing import assert_within
from mhakit_builtins.average import Average

FOLDED = [
    "concat_project", "average", "sum", "weighted_sum", "head_scale", "head_mask", "drop_head", "hadamard",
]  # fmt: skip


def assert_within_budget(actual, formula, heads, parameters, hidden):
    """Hold a result against a formula of heads, parameters and hidden states."""

    def run(real):
        cast = {name: array.astype(real) for name, array in parameters.items()}
        return formula(heads.astype(real), cast, hidden.astype(real))

    assert actual.dtype == heads.dtype
    assert_within(actual, budget_of(run, heads.dtype))


COMPUTED_IN_NUMPY = ("hadamard", "bilinear")


@pytest.mark.parametrize("real", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_each_does_what_its_formula_says(case, real, backend):
    strategy, formula = CASES[case]
    given = drawn(strategy, real)
    if backend == "cuda" and strategy.name in COMPUTED_IN_NUMPY:
        with pytest.raises(
            mhakit.BackendUnavailable, match=f"{strategy.name!r} must return a plan"
        ):
            combined(strategy, *given, backend=backend)
        return
    assert_within_budget(combined(strategy, *given, backend=backend), formula, *given)


class Off(Average):
    """Wrong by a few hundred roundings."""

    def plan(self, heads, parameters, **given):
        return self.project(heads, parameters, head_weights=(1 + 1e-13) / heads.shape[1])


def test_an_error_of_a_few_hundred_roundings_is_seen():
    given = drawn(Off())
    with pytest.raises(AssertionError):
        assert_within_budget(combined(Off(), *given), CASES["average"][1], *given)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("empty", ["words", "batch"])
@pytest.mark.parametrize("case", CASES)
def test_no_words_and_no_batch_give_empty_results_and_gradients_of_zero(case, empty, backend):
    strategy, _ = CASES[case]
    heads, parameters, hidden = drawn(strategy)
    kept = np.s_[:, :, :0] if empty == "words" else np.s_[:0]
    heads, hidden = heads[kept], hidden[:, :0] if empty == "words" else hidden[:0]
    output, pullback = mhakit.combine_vjp(
        heads, strategy, parameters, hidden_states=hidden, training=True, rng=0, backend=backend
    )
    assert output.shape == hidden.shape
    gradients = pullback(output)
    assert gradients.heads.shape == heads.shape
    for name, gradient in gradients.parameters.items():
        np.testing.assert_array_equal(gradient, np.zeros_like(parameters[name]))


def test_all_of_the_catalogue_is_installed_and_tested():
    installed = {r.name: r for r in mhakit.combinations() if r.distribution == "mhakit"}
    assert set(installed) == {strategy.name for strategy, _ in CASES.values()}
    for strategy, _ in CASES.values():
        assert installed[strategy.name].cls is type(strategy)


@pytest.mark.parametrize("name", sorted({strategy.name for strategy, _ in CASES.values()}))
def test_a_layer_takes_each_by_name(name):
    layer = mhakit.MultiHeadAttention(16, 4, combine=name, rng=0)
    x = np.random.default_rng(1).standard_normal((2, 3, 16)).astype(np.float32)
    y = layer(x)
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    assert y.any()


@pytest.mark.parametrize("case", CASES)
def test_the_fold_does_what_runs_where_there_is_one(case):
    strategy, _ = CASES[case]
    heads, parameters, hidden = drawn(strategy)
    folded = strategy.fold(parameters, shape_of(strategy))
    assert (folded is not None) == (strategy.name in FOLDED)
    if folded is not None:
        weight, bias = folded
        expected = concat(heads) @ weight + (0 if bias is None else bias)
        actual = combined(strategy, heads, parameters, hidden)
        np.testing.assert_allclose(
            actual, expected, rtol=0, atol=H * E * 2e-16 * np.abs(expected).max()
        )
