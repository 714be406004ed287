"""What each combination of the catalogue must equal, and begin as."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.fixed_heads import CONCAT, HEADS, HIDDEN, SHARED, E, H, M, assert_same, combine
from mhakit.plugin_api import HeadShape
from mhakit_builtins.attention_over_heads import AttentionOverHeads
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.mixture_of_heads import MixtureOfHeads

RNG = np.random.default_rng(1)


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
