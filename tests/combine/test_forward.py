"""Strategies that no plan says: they run their own forward."""

from __future__ import annotations

import re

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.combinations import B, E, H, M, Planned, T, assert_within_budget
from mhakit.errors import ParameterError, PluginError
from mhakit.plugin_api import HeadCombination


class Forward(HeadCombination):
    name = "forward"
    reference = "a test"

    def __init__(self, result=None):
        self.result = result

    def forward(self, heads, parameters, *, hidden_states, training, rng):
        return (np.sin(heads).mean(axis=1), None) if self.result is None else self.result


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_strategy_without_a_plan_runs_its_forward(backend, dtype):
    heads = draw(B, H, T, E, dtype=dtype)
    result = mhakit.combine(heads, Forward(), backend=backend)
    assert_within_budget(result, lambda z: np.sin(z).mean(axis=1), heads)
    assert result.dtype == dtype


def test_the_result_of_forward_is_memory_of_its_own():
    kept = draw(B, T, E)
    result = mhakit.combine(draw(B, H, T, E), Forward((kept, None)))
    np.testing.assert_array_equal(result, kept)
    assert not np.shares_memory(result, kept)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (draw(B, T, E), r"must return \(output, residuals\) from forward, got ndarray"),
        (
            (draw(B, T + 1, E), None),
            r"must return floats \(B, T, M\) with B=2, T=5 from forward, got float64 of shape "
            r"\(2, 6, 7\)",
        ),
        ((np.ones((B, T, E), int), None), r"must return floats \(B, T, M\).*got int64 of shape"),
    ],
)
def test_a_forward_that_returns_something_else_is_refused(result, told):
    with pytest.raises(PluginError, match=r"combination 'forward' " + told):
        mhakit.combine(draw(B, H, T, E), Forward(result))


def test_a_forward_of_another_width_than_the_layer_is_refused():
    with pytest.raises(PluginError, match=r"with B=2, T=5 and M=9 from forward"):
        mhakit.combine(draw(B, H, T, E), Forward(), hidden_states=draw(B, T, M))


def test_a_forward_that_fails_is_named_with_its_cause():
    class Failing(Forward):
        def forward(self, *_, **__):
            raise KeyError("gate")

    with pytest.raises(
        PluginError, match=r"'forward' must run forward without an error, got KeyError: 'gate'"
    ):
        mhakit.combine(draw(B, H, T, E), Failing())


def test_a_strategy_with_neither_plan_nor_forward_is_refused():
    with pytest.raises(PluginError, match=r"must return a plan or define forward, got neither"):
        mhakit.combine(draw(B, H, T, E), Planned())


def test_an_error_message_of_the_package_passes_as_it_is():
    class Careful(Forward):
        def forward(self, *_, **__):
            raise ParameterError("top_k must be at most H=6, got 7")

    with pytest.raises(ParameterError, match=re.escape("top_k must be at most H=6, got 7")):
        mhakit.combine(draw(B, H, T, E), Careful())
