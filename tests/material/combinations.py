"""Heads to combine, combinations that say any plan at all, and how far from exact they may be."""

from __future__ import annotations

import numpy as np

from material.arrays import draw
from material.budgets import budget_of
from mhakit.plugin_api import CombinationPlan, HeadCombination
from mhakit.testing import assert_within

B, H, T, E, M = 2, 6, 5, 7, 9


def learned(inner, dtype=np.float64):
    return {"weight": draw(inner, M, seed=1, dtype=dtype), "bias": draw(M, seed=2, dtype=dtype)}


def assert_within_budget(actual, formula, *arrays):
    """Hold a result against a formula of these arrays."""
    expected = budget_of(lambda real: formula(*(a.astype(real) for a in arrays)), actual.dtype)
    assert_within(actual, expected)


class Planned(HeadCombination):
    """Any plan at all, given when it is made."""

    name = "planned"
    reference = "a test"

    def __init__(self, result=None, specs=None, **fields):
        self.result = CombinationPlan(**fields) if fields else result
        self.specs = specs or {}

    def parameters(self, shape):
        return self.specs

    def plan(self, heads, parameters, **given):
        self.given = given
        return self.result


FACTORS = {
    "none": None,
    "a number": 0.37,
    "by head": draw(H, 1, 1, seed=3),
    "by batch and head": draw(B, H, 1, 1, seed=3),
    "by word": draw(B, H, T, 1, seed=3),
    "by element": draw(B, H, T, E, seed=3),
    "by channel": draw(1, 1, 1, E, seed=3),
    "mask": np.arange(H).reshape(H, 1, 1) % 2 == 0,
}
