"""What goes wrong elsewhere with these combinations, and what they must equal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard as hadamard_matrix

import mhakit
from mhakit.plugin_api import HeadShape
from mhakit_builtins.attention_over_heads import AttentionOverHeads
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.drop_head import DropHead
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.hadamard import walsh_hadamard
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.head_norm import HeadNorm
from mhakit_builtins.mixture_of_heads import MixtureOfHeads

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


# ---- what each equals -------------------------------------------------------------------------


def test_the_average_is_the_sum_over_h(backend):
    weight = SHARED["weight"]
    plain = combine("sum", {"weight": weight, "bias": np.zeros(M)}, backend=backend)
    assert_same(
        combine("average", {"weight": weight, "bias": np.zeros(M)}, backend=backend), plain / H
    )


@pytest.mark.parametrize(
    ("combination", "parameters"),
    [
        ("head_scale", {"gain": np.ones(H)}),
        (GatedHeads(40), {"gate": np.zeros((M, H)), "gate_bias": np.full(H, 40.0)}),
        (GatedElements(40), {"gate": np.zeros((M, H * E)), "gate_bias": np.full(H * E, 40.0)}),
        ("head_mask", {}),
        ("drop_head", {}),
        (
            MixtureOfHeads(shared_heads=2, top_k=4),
            {"shared_router": np.zeros((M, 2)), "router": np.zeros((M, 4)), "balance": np.zeros((M, 2))},
        ),
    ],
    ids=["gain 1", "open gates", "open elements", "no mask", "not training", "undecided routers"],
)  # fmt: skip
def test_these_begin_as_concat_project(combination, parameters, backend):
    actual = combine(combination, {**parameters, **CONCAT}, backend=backend)
    assert_same(actual, combine("concat_project", CONCAT, backend=backend))


@pytest.mark.parametrize(
    ("combination", "parameters"),
    [("weighted_sum", {"logits": np.full(H, 7.0)}), ("attention_over_heads", {"query": np.zeros((M, E))})],
)  # fmt: skip
def test_these_begin_as_average(combination, parameters, backend):
    actual = combine(combination, {**parameters, **SHARED}, backend=backend)
    assert_same(actual, combine("average", SHARED, backend=backend))


@pytest.mark.parametrize(("strategy", "gates"), [(GatedHeads(), H), (GatedElements(), H * E)])
def test_a_gate_without_a_bias_halves_a_trained_layer_and_an_open_one_leaves_it(strategy, gates):
    trained = combine("concat_project", CONCAT) - CONCAT["bias"]
    learned = {"gate": np.zeros((M, gates)), **CONCAT}
    assert_same(combine(strategy, learned) - CONCAT["bias"], trained / 2)
    opened = type(strategy)(gate_bias=4)
    start = opened.parameters(HeadShape(H, E, M))["gate_bias"].init(None, (gates,))
    assert_same(
        combine(opened, {**learned, "gate_bias": start}) - CONCAT["bias"],
        trained / (1 + np.exp(-4)),
    )


@pytest.mark.parametrize("name", ["average", "sum", "max", "attention_over_heads"])
def test_the_order_of_the_heads_does_not_matter(name):
    parameters = {**SHARED, "query": RNG.standard_normal((M, E))}
    if name != "attention_over_heads":
        del parameters["query"]
    shuffled = HEADS[:, [3, 0, 5, 1, 4, 2]]
    assert_same(combine(name, parameters, shuffled), combine(name, parameters))


def test_what_is_attended_to_over_heads_lies_between_the_heads(backend):
    query = 3 * RNG.standard_normal((M, E))
    found = mhakit.combine(
        HEADS, AttentionOverHeads(bias=False), {"query": query[:E], "weight": np.eye(E)},
        hidden_states=HIDDEN[..., :E], backend=backend,
    )  # fmt: skip
    slack = 4 * np.finfo(float).eps * np.abs(HEADS).max()
    assert (found <= HEADS.max(axis=1) + slack).all()
    assert (found >= HEADS.min(axis=1) - slack).all()


# ---- heads that are left out ------------------------------------------------------------------


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


# ---- traps of single strategies ---------------------------------------------------------------


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
