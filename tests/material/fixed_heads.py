"""Heads, hidden states and projections of one size, drawn once, and how near sums of them are."""

from __future__ import annotations

import numpy as np

import mhakit

B, H, T, E, M = 3, 6, 5, 4, 9
RNG = np.random.default_rng(0)
HEADS, HIDDEN = RNG.standard_normal((B, H, T, E)), RNG.standard_normal((B, T, M))
CONCAT = {"weight": RNG.standard_normal((H * E, M)), "bias": RNG.standard_normal(M)}
SHARED = {"weight": RNG.standard_normal((E, M)), "bias": RNG.standard_normal(M)}


def combine(combination, parameters, heads=HEADS, **keywords):
    return mhakit.combine(heads, combination, parameters, hidden_states=HIDDEN, **keywords)


def assert_same(actual, expected):
    """Allow the roundings of a sum of H * E products."""
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=H * E * 2e-16 * np.abs(expected).max()
    )


def with_nan(head):
    heads = HEADS.copy()
    heads[:, head] = np.nan
    return heads
