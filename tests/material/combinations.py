"""Heads to combine, combinations that say any plan at all, and how far from exact they may be."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from material.arrays import draw
from mhakit.plugin_api import CombinationPlan, HeadCombination
from mhakit.problem import computation_dtype

B, H, T, E, M = 2, 6, 5, 7, 9


def learned(inner, dtype=np.float64):
    return {"weight": draw(inner, M, seed=1, dtype=dtype), "bias": draw(M, seed=2, dtype=dtype)}


def assert_within_budget(actual, formula, *arrays):
    """Allow twice the error of the formula in the computation dtype and of one rounding."""
    real = computation_dtype(actual.dtype)
    finest = np.longdouble if real == np.float64 else np.float64
    exact = formula(*(array.astype(finest) for array in arrays))
    plain = formula(*(array.astype(real) for array in arrays)).astype(finest)
    rounding = np.abs(exact).max() * float(ml_dtypes.finfo(actual.dtype).eps) / 2
    allowed = 2 * (np.abs(plain - exact).max() + rounding)
    assert actual.shape == exact.shape
    assert np.abs(actual.astype(finest) - exact).max() <= allowed


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
