"""What goes wrong elsewhere with single combinations of the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard as hadamard_matrix

import mhakit
from material.fixed_heads import (
    CONCAT,
    HEADS,
    HIDDEN,
    SHARED,
    E,
    H,
    M,
    assert_same,
    combine,
    with_nan,
)
from mhakit.plugin_api import HeadShape
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.hadamard import walsh_hadamard
from mhakit_builtins.head_norm import HeadNorm

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("name", [r.name for r in mhakit.combinations()])
def test_nothing_is_kept_on_the_strategy(name):
    strategy = next(r.cls for r in mhakit.combinations() if r.name == name)()
    shape = HeadShape(4, 2, 8)
    rng = np.random.default_rng(0)
    parameters = {n: rng.standard_normal(s.shape) for n, s in strategy.parameters(shape).items()}
    before = dict(vars(strategy))
    for _ in range(2):
        mhakit.combine(
            rng.standard_normal((2, 4, 3, 2)), strategy, parameters,
            hidden_states=rng.standard_normal((2, 3, 8)), training=True, rng=0,
        )  # fmt: skip
    assert vars(strategy) == before


def test_the_scale_of_a_head_acts_before_the_projection():
    gain = np.ones(H)
    gain[1] = 0
    result = combine("head_scale", {"gain": gain, **CONCAT}, with_nan(1))
    alone = CONCAT["weight"].reshape(H, E, M).copy()
    alone[1] = 0
    assert_same(result, combine("concat_project", {**CONCAT, "weight": alone.reshape(H * E, M)}))


def test_pairs_are_neighbours_and_what_both_see_cancels():
    weight = RNG.standard_normal((H // 2 * E, M))
    twins = np.repeat(HEADS[:, ::2], 2, axis=1)
    steep = {"lambda": np.full((M, H // 2), 900.0), "weight": weight, "bias": np.zeros(M)}
    x = np.abs(HIDDEN)
    full = mhakit.combine(twins, "differential", steep, hidden_states=x)
    assert not full.any()
    none = mhakit.combine(with_nan(1), "differential", steep, hidden_states=-x)  # l is exactly 0
    assert_same(
        none,
        mhakit.combine(HEADS[:, ::2], "concat_project", {"weight": weight, "bias": np.zeros(M)}),
    )


def test_the_transform_is_the_orthogonal_walsh_hadamard_matrix():
    for block in (1, 2, 4, 8, 32, 256):
        matrix = walsh_hadamard(np.eye(block), block)
        np.testing.assert_allclose(matrix, hadamard_matrix(block) / np.sqrt(block), atol=1e-15)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(block), atol=1e-14)
        rows = RNG.standard_normal((3, 2 * block))
        np.testing.assert_allclose(
            walsh_hadamard(walsh_hadamard(rows, block), block), rows, atol=1e-14
        )


def test_hadamard_keeps_the_length_of_a_word_and_mixes_heads_within_a_block_only():
    heads = np.zeros((1, 6, 1, 4))
    heads[0, 2, 0, 1] = 1  # channel 9, of the second block of 8
    learned = {"gain": np.ones(24), "bias": np.zeros(24)}
    (row,) = mhakit.combine(heads, "hadamard", learned)[0]
    assert np.flatnonzero(row).tolist() == list(range(8, 16))
    np.testing.assert_allclose(np.linalg.norm(row), 1)


def test_head_norm_forgets_the_size_of_a_head_but_not_that_it_saw_nothing(backend):
    learned = {"gain": np.ones((H, E)), **CONCAT}
    norm = HeadNorm(eps=1e-30)
    sizes = 2.0 ** np.arange(H)[:, None, None]
    assert_same(combine(norm, learned, HEADS * sizes, backend=backend), combine(norm, learned))
    nothing = combine("head_norm", learned, np.zeros_like(HEADS), backend=backend)
    np.testing.assert_array_equal(nothing, np.broadcast_to(CONCAT["bias"], nothing.shape))


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30])
def test_a_head_whose_norm_overflows_does_not_vanish(value, backend):
    heads = HEADS.astype(np.float32)
    heads[0, 1, 2, 3] = value
    learned = {"gain": np.ones((H, E)), **CONCAT}
    result = combine("head_norm", learned, heads, backend=backend)
    assert np.isnan(result[0, 2]).all()
    assert np.isfinite(result).sum() == result.size - M


def test_bilinear_is_of_the_second_degree():
    learned = {
        "left": RNG.standard_normal((H * E, 3)), "right": RNG.standard_normal((H * E, 3)),
        "weight": RNG.standard_normal((3, M)),
    }  # fmt: skip
    once = combine(Bilinear(rank=3, bias=False), learned)
    for factor, power in ((-1, 1), (2, 4)):
        again = combine(Bilinear(rank=3, bias=False), learned, factor * HEADS)
        np.testing.assert_array_equal(again, power * once)


def test_a_nan_in_any_head_wins_the_maximum(backend):
    assert np.isnan(combine("max", SHARED, with_nan(4), backend=backend)).all()
