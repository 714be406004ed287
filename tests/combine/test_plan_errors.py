"""A plan, a parameter or a size that breaks a rule is refused with the rule."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.combinations import B, E, H, M, Planned, T
from mhakit.errors import ParameterError, PluginError


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"groups": 4}, r"groups between 1 and H=6 that divide H, got 4"),
        ({"groups": 0}, r"groups between 1 and H=6 that divide H, got 0"),
        ({"groups": 12}, r"groups between 1 and H=6 that divide H, got 12"),
        ({"groups": 2.0}, r"groups as an int, got 2.0"),
        ({"groups": 1, "reduce": "mean"}, r"reduce 'sum' or 'max', got 'mean'"),
        (
            {"groups": 2, "weight": np.ones((E, M))},
            r"weight \(groups \* E, M\) with groups \* E = 14, got shape \(7, 9\)",
        ),
        ({"groups": 1, "weight": np.ones(E)}, r"weight \(groups \* E, M\) .*got shape \(7,\)"),
        ({"groups": 1, "weight": "w"}, r"weight of floats, got <U1"),
        ({"groups": 1, "weight": np.ones((E, M), complex)}, r"weight of floats, got complex128"),
        (
            {"groups": 1, "weight": np.ones((E, M)), "bias": np.ones(E)},
            r"bias \(M,\) with M=9, got shape \(7,\)",
        ),
        ({"groups": 1, "bias": np.ones(M)}, r"bias \(M,\) with M=7, got shape \(9,\)"),
        (
            {"groups": 1, "head_weights": np.ones(H)},
            r"head_weights broadcastable to \(B, H, T, E\) = \(2, 6, 5, 7\), got shape \(6,\)",
        ),
        ({"groups": 1, "head_weights": np.ones((1,) * 5)}, r"head_weights broadcastable to"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_with_the_rule(plan, told):
    with pytest.raises(PluginError, match=r"combination 'planned' must plan " + told):
        mhakit.combine(draw(B, H, T, E), Planned(**plan))


def test_a_plan_that_is_none_is_refused_by_its_type():
    with pytest.raises(PluginError, match=r"must plan a CombinationPlan or None, got dict"):
        mhakit.combine(draw(B, H, T, E), Planned({"groups": 1}))


def test_a_plan_that_leads_to_another_width_is_refused():
    with pytest.raises(PluginError, match=r"must plan a projection to M=9, got 7 columns"):
        mhakit.combine(draw(B, H, T, E), Planned(groups=1), hidden_states=draw(B, T, M))


@pytest.mark.parametrize("specs", [[1], {"a": (3,)}])
def test_parameters_that_are_no_specs_are_refused(specs):
    with pytest.raises(PluginError, match=r"'planned' must give parameters as a dict of names to"):
        mhakit.combine(draw(B, H, T, E), Planned(specs=specs))


def test_a_combination_may_refuse_the_sizes():
    class Even(Planned):
        def validate(self, shape):
            if shape.num_heads % 2:
                raise ParameterError(f"num_heads must be even, got {shape.num_heads}")

    with pytest.raises(ParameterError, match="num_heads must be even, got 3"):
        mhakit.combine(draw(B, 3, T, E), Even(groups=1))
