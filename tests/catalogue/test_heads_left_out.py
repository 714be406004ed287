"""Heads that are masked, dropped or not chosen never reach the output."""

from __future__ import annotations

import numpy as np

import mhakit
from material.fixed_heads import (
    CONCAT,
    HEADS,
    HIDDEN,
    B,
    E,
    H,
    M,
    T,
    assert_same,
    combine,
    with_nan,
)
from mhakit_builtins.drop_head import DropHead
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.mixture_of_heads import MixtureOfHeads


def test_a_masked_head_is_left_out_whatever_it_holds(backend):
    mask = HeadMask(mask=np.array([1, 1, 0, 1, 1, 1]))
    clean = combine(mask, CONCAT, backend=backend)
    np.testing.assert_array_equal(combine(mask, CONCAT, with_nan(2), backend=backend), clean)
    assert np.isnan(combine("head_mask", CONCAT, with_nan(2), backend=backend)).all()


def test_all_heads_masked_leave_the_bias(backend):
    heads = np.full_like(HEADS, np.nan)
    result = combine(HeadMask([0] * H), CONCAT, heads, backend=backend)
    np.testing.assert_array_equal(result, np.broadcast_to(CONCAT["bias"], result.shape))


def test_a_dropped_head_is_left_out_and_the_others_make_up_for_it(backend):
    unit = {"weight": np.tile(np.eye(E), (H, 1)), "bias": np.zeros(E)}
    counts = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        plan = DropHead(0.5).plan(HEADS, unit, hidden_states=None, training=True, rng=rng)
        kept = plan.head_weights != 0
        assert kept.shape == (B, H, 1, 1)  # for each sample
        heads = np.where(np.broadcast_to(kept, HEADS.shape), 1, np.nan)
        result = mhakit.combine(
            heads, DropHead(0.5), unit, training=True, rng=seed, backend=backend
        )
        counts |= set(kept.sum(axis=1).ravel().tolist())
        some = kept.any(axis=1)
        assert_same(result, np.broadcast_to(np.where(some, float(H), 0), result.shape))
    assert counts >= {0, 2, 3, 4}


def test_a_sample_whose_heads_are_all_dropped_gives_the_bias(backend):
    one = {"weight": CONCAT["weight"][:E], "bias": CONCAT["bias"]}
    seen = set()
    for seed in range(20):
        result = mhakit.combine(
            np.full((1, 1, T, E), np.nan),
            DropHead(0.6),
            one,
            training=True,
            rng=seed,
            backend=backend,
        )
        dropped = np.isfinite(result).all()
        if dropped:
            np.testing.assert_array_equal(result, np.broadcast_to(one["bias"], result.shape))
        seen.add(bool(dropped))
    assert seen == {True, False}


def test_heads_are_dropped_at_their_rate_and_by_the_given_generator_alone():
    many = np.zeros((4000, H, 1, 1))
    plan = DropHead(0.3).plan(
        many, {"weight": CONCAT["weight"]}, hidden_states=None, training=True, rng=np.random.default_rng(5)
    )  # fmt: skip
    dropped = np.count_nonzero(plan.head_weights == 0)
    # five standard deviations of the binomial
    assert abs(dropped - 0.3 * many.size) < 5 * np.sqrt(many.size * 0.3 * 0.7)
    first, second = (combine(DropHead(0.5), CONCAT, training=True, rng=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (combine(DropHead(0.5), CONCAT, training=True, rng=4) != first).any()


def routed(shared, top_k, seed=2):
    widths = {"shared_router": shared, "router": H - shared, "balance": 2}
    rng = np.random.default_rng(seed)
    return MixtureOfHeads(shared_heads=shared, top_k=top_k), {
        **{name: rng.standard_normal((M, width)) for name, width in widths.items()},
        **CONCAT,
    }


def test_each_word_has_the_shared_heads_and_k_others_whose_weights_sum_as_promised():
    strategy, parameters = routed(2, 3)
    plan = strategy.plan(HEADS, parameters, hidden_states=HIDDEN, training=False, rng=None)
    weights = plan.head_weights[..., 0]
    assert (np.count_nonzero(weights[:, :2], axis=1) == 2).all()
    assert (np.count_nonzero(weights[:, 2:], axis=1) == 3).all()
    balance = HIDDEN @ parameters["balance"]
    shares = 2 / (1 + np.exp(balance[..., ::-1] - balance))
    np.testing.assert_allclose(weights[:, :2].sum(axis=1), 2 * shares[..., 0], rtol=1e-12)
    np.testing.assert_allclose(weights[:, 2:].sum(axis=1), 3 * shares[..., 1], rtol=1e-12)


def test_a_head_that_a_word_did_not_choose_never_reaches_it(backend):
    strategy, parameters = routed(1, 2)
    plan = strategy.plan(HEADS, parameters, hidden_states=HIDDEN, training=False, rng=None)
    hidden = np.broadcast_to(plan.head_weights == 0, HEADS.shape)
    assert hidden.any()
    result = combine(strategy, parameters, np.where(hidden, np.nan, HEADS), backend=backend)
    np.testing.assert_array_equal(result, combine(strategy, parameters, backend=backend))


def test_among_equal_logits_the_first_heads_are_chosen():
    strategy, parameters = routed(0, 2)
    parameters["router"][:] = 0
    plan = strategy.plan(HEADS, parameters, hidden_states=HIDDEN, training=False, rng=None)
    np.testing.assert_array_equal(plan.head_weights[0, :, 0, 0], [1, 1, 0, 0, 0, 0])
