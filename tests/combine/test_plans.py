"""What a plan may say, and what becomes of heads under it."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.combinations import FACTORS, B, E, H, Planned, T, assert_within_budget, learned


def formula_of(plan, factors):
    """Return the plan's formula, in plain NumPy, on arrays of any dtype."""

    def formula(heads, factors, weight, bias):
        weighted = np.where(factors == 0, 0, heads) * factors
        b, h, t, e = heads.shape
        grouped = weighted.reshape(b, plan.groups, h // plan.groups, t, e)
        reduced = grouped.sum(axis=2) if plan.reduce == "sum" else grouped.max(axis=2)
        combined = reduced.swapaxes(1, 2).reshape(b, t, -1)
        combined = combined if plan.weight is None else combined @ weight
        return combined if plan.bias is None else combined + bias

    return lambda heads, weight, bias: formula(heads, factors.astype(heads.dtype), weight, bias)


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("groups", [1, 2, H])
@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("form", ["serial", "parallel"], indirect=True)
def test_a_plan_weighs_reduces_and_projects(form, factors, groups, reduce, projected):
    for real in (np.float64, np.float32):
        heads = draw(B, H, T, E, dtype=real)
        weight, bias = learned(groups * E, real).values()
        given = FACTORS[factors]
        plan = {
            "groups": groups,
            "reduce": reduce,
            "head_weights": given.astype(real) if factors.startswith("by") else given,
            "weight": weight if projected else None,
            "bias": bias if projected else None,
        }
        strategy = Planned(**plan)
        used = np.asarray(1 if given is None else plan["head_weights"])
        formula = formula_of(strategy.result, used if used.dtype == bool else used.astype(real))
        for backend in ("cpu", "reference"):
            actual = mhakit.combine(heads, strategy, backend=backend)
            assert_within_budget(actual, formula, heads, weight, bias)


@pytest.mark.parametrize("factors", ["by head", "by element"])
def test_a_head_of_weight_zero_is_left_out_whatever_it_holds(backend, factors):
    heads = draw(B, H, T, E)
    weights = np.ones((H, 1, 1)) if factors == "by head" else np.ones((B, H, T, E))
    weights[..., 2, :, :] = 0
    strategy = Planned(groups=2, head_weights=weights)
    clean = mhakit.combine(heads, strategy, backend=backend)
    for garbage in (np.nan, np.inf, -np.inf):
        heads[:, 2] = garbage
        np.testing.assert_array_equal(mhakit.combine(heads, strategy, backend=backend), clean)
    heads[0, 1, 3, 4] = np.nan  # a head that is weighed is not hidden
    assert np.argwhere(np.isnan(mhakit.combine(heads, strategy, backend=backend))).tolist() == [
        [0, 3, 4]
    ]


def test_a_nan_wins_the_maximum(backend):
    heads = draw(B, H, T, E)
    for h in (0, 3, H - 1):
        heads[0, h, h % T, 1] = np.nan
    result = mhakit.combine(heads, Planned(groups=1, reduce="max"), backend=backend)
    np.testing.assert_array_equal(result, heads.max(axis=1))
