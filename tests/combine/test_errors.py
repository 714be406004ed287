"""What is refused of heads, parameters, hidden states and keywords."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.combinations import B, E, H, M, Planned, T, learned
from mhakit.errors import DTypeError, ParameterError, ShapeError
from mhakit.plugin_api import CombinationPlan


@pytest.mark.parametrize(
    ("heads", "error", "told"),
    [
        (
            draw(H, E),
            ShapeError,
            r"heads must be \(B, H, T, E\) or \(H, T, E\), got shape \(6, 7\)",
        ),
        (draw(B, 0, T, E), ShapeError, r"heads must have H and E of at least 1, got H=0 and E=7"),
        (draw(B, H, T, 0), ShapeError, r"heads must have H and E of at least 1, got H=6 and E=0"),
        ([[[1.0]]], DTypeError, r"heads must be an array, got list"),
        (np.ones((B, H, T, E), int), DTypeError, r"heads must be float64.*got int64"),
        (np.ones((B, H, T, E), complex), DTypeError, r"heads must be float64.*got complex128"),
    ],
)
def test_heads_that_are_no_heads_are_refused(heads, error, told):
    with pytest.raises(error, match=told):
        mhakit.combine(heads, "average", learned(E))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"bias": ...}, ParameterError, r"of 'average' must be: weight, bias, got none named 'b"),
        ({"weight": ...}, ParameterError, r"of 'average' must be: weight, bias, got none named 'w"),
        (
            {"wieght": np.ones(1)},
            ParameterError,
            r"parameters of 'average' must be: weight, bias, got 'wieght'; did you mean 'weight'\?",
        ),
        ({"zzz": np.ones(1)}, ParameterError, r"must be: weight, bias, got 'zzz'$"),
        (
            {"weight": np.ones((E + 1, M))},
            ShapeError,
            r"parameters\['weight'\] of 'average' must have shape \(7, 9\) for H=6, E=7 and M=9, "
            r"got shape \(8, 9\)",
        ),
        (
            {"bias": np.ones(M + 1)},
            ShapeError,
            r"parameters\['bias'\] .* \(9,\) .*got shape \(10,\)",
        ),
        ({"weight": np.ones((E, M), int)}, DTypeError, r"parameters\['weight'\] must be float64"),
        ({"bias": [0.0] * M}, DTypeError, r"parameters\['bias'\] must be an array, got list"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(changes, error, told):
    parameters = {**learned(E), **changes}
    parameters = {name: value for name, value in parameters.items() if value is not ...}
    with pytest.raises(error, match=told):
        mhakit.combine(draw(B, H, T, E), "average", parameters)


def test_parameters_that_are_no_mapping_are_refused():
    with pytest.raises(ParameterError, match=r"parameters must be a mapping .* got list"):
        mhakit.combine(draw(B, H, T, E), "average", [1])


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        (draw(T, M), r"hidden_states must be \(B, T, M\) as heads has B, got shape \(5, 9\)"),
        (draw(B, T, M + 1), r"hidden_states must be \(B, T, M\) with B=2, T=5 and M=9, got shape"),
        (draw(B, T + 1, M), r"hidden_states must be \(B, T, M\) with B=2, T=5 and M=9, got shape"),
    ],
)
def test_hidden_states_that_do_not_fit_are_refused(hidden, told):
    with pytest.raises(ShapeError, match=told):
        mhakit.combine(draw(B, H, T, E), "average", learned(E), hidden_states=hidden)


def test_hidden_states_with_a_batch_are_refused_where_heads_have_none():
    with pytest.raises(ShapeError, match=r"must be \(T, M\) as heads has no B"):
        mhakit.combine(draw(H, T, E), "average", learned(E), hidden_states=draw(1, T, M))


def test_hidden_states_are_asked_for_where_they_are_read():
    class Reader(Planned):
        uses_hidden_states = True

    strategy = Reader(groups=1)
    with pytest.raises(ParameterError, match=r"hidden_states must be given, combination 'planned'"):
        mhakit.combine(draw(B, H, T, E), strategy)
    hidden = draw(B, T, E, dtype=ml_dtypes.bfloat16)
    mhakit.combine(draw(B, H, T, E, dtype=np.float32), strategy, hidden_states=hidden)
    assert strategy.given["hidden_states"].dtype == np.float32
    np.testing.assert_array_equal(strategy.given["hidden_states"], hidden.astype(np.float32))


class Dropping(Planned):
    stochastic = True

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        self.rng = rng
        kept = 1.0 if rng is None else rng.integers(0, 2, (heads.shape[1], 1, 1))
        return CombinationPlan(groups=1, head_weights=kept)


def test_the_same_seed_drops_the_same_heads_and_without_training_none():
    heads, strategy = draw(B, H, T, E), Dropping()
    first = mhakit.combine(heads, strategy, training=True, rng=5)
    again = mhakit.combine(heads, strategy, training=True, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(first, again)
    calm = mhakit.combine(heads, strategy, rng=5)
    assert strategy.rng is None
    np.testing.assert_allclose(calm, heads.sum(axis=1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"training": True}, r"rng must be an int or a Generator, combination 'planned' draws"),
        (
            {"rng": -1},
            r"rng must be None, an int of at least 0 or a numpy.random.Generator, got -1",
        ),
        ({"rng": True}, r"rng must be None, .* got True"),
        ({"rng": 0.5}, r"rng must be None, .* got 0.5"),
        ({"training": "yes"}, r"training must be True or False, got 'yes'"),
        ({"backend": "gpu"}, r"backend must be None or one of .*'cpu'.*got 'gpu'"),
    ],
)
def test_keywords_outside_their_rule_are_refused(keywords, told):
    with pytest.raises(ParameterError, match=told):
        mhakit.combine(draw(B, H, T, E), Dropping(), **keywords)
