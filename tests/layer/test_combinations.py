"""The combination of a layer: what it is given, and another one under the same heads."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.layers import B, E, Gate, H, M, T, grouped
from mhakit.errors import ParameterError, PluginError, ShapeError


def test_a_combination_gets_the_layers_input_and_its_randomness():
    layer, x = grouped(combine=Gate), draw(B, T, M)
    gate = (x @ layer.parameters()["combine.gate"]).swapaxes(1, 2)[..., None]
    z = (layer.heads(x) * gate).reshape(B, 3, H // 3, T, E).sum(axis=2)
    expected = z.swapaxes(1, 2).reshape(B, T, M)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer(x[0]), expected[0], rtol=1e-12, atol=1e-12)
    trained = layer(x, training=True, rng=3)
    np.testing.assert_allclose(trained, expected * np.random.default_rng(3).random(), rtol=1e-12)
    with pytest.raises(ParameterError, match="rng must be an int or a Generator"):
        layer(x, training=True)
    with pytest.raises(ParameterError, match="hidden_states must be given"):
        layer.combine(layer.heads(x))


def test_another_combination_keeps_the_heads_and_what_fits():
    layer, x = grouped(), draw(B, T, M)
    layer.set_parameters({"combine.bias": draw(M, seed=6)})
    heads, bias = layer.heads(x), layer.parameters()["combine.bias"]
    assert layer.combine_with("average", rng=0) == ("combine.weight",)
    np.testing.assert_array_equal(layer.heads(x), heads)
    np.testing.assert_array_equal(layer.parameters()["combine.bias"], bias)
    weight = layer.parameters()["combine.weight"]
    np.testing.assert_allclose(layer(x), heads.mean(axis=1) @ weight + bias, rtol=1e-12, atol=1e-12)
    assert layer.combination.name == "average"


def test_parameters_can_come_with_the_combination():
    layer, weight = grouped(), draw(E, M, seed=5)
    assert layer.combine_with("average", parameters={"combine.weight": weight}) == ()
    np.testing.assert_array_equal(layer.parameters()["combine.weight"], weight)


@pytest.mark.parametrize(
    ("combination", "parameters", "error", "told"),
    [
        ("averag", None, PluginError, r"did you mean 'average'"),
        (
            "average",
            {"combine.weight": draw(E + 1, M)},
            ShapeError,
            r"parameters\['weight'\] of 'average'",
        ),
        (
            "average",
            {"combine.w": draw(E, M)},
            ParameterError,
            r"of 'average' must be: weight, bias, got",
        ),
        (
            "average",
            {"weight": draw(E, M)},
            ParameterError,
            r"of this layer must be: combine.weight, combine.bias, got 'weight'",
        ),
        ("average", [1], ParameterError, r"parameters must be a mapping .*got list"),
    ],
)
def test_a_combination_that_fails_leaves_the_layer_as_it_was(combination, parameters, error, told):
    layer, x = grouped(), draw(B, T, M)
    before = layer(x)
    with pytest.raises(error, match=told):
        layer.combine_with(combination, parameters=parameters, rng=0)
    np.testing.assert_array_equal(layer(x), before)
    assert layer.combination.name == "concat_project"


def test_sizes_that_a_combination_cannot_take_leave_the_layer_as_it_was():
    layer, x = mhakit.MultiHeadAttention(9, num_heads=3, dtype=np.float64, rng=0), draw(B, T, 9)
    before = layer(x)
    with pytest.raises(ParameterError, match="H=3"):
        layer.combine_with("differential", rng=0)
    np.testing.assert_array_equal(layer(x), before)


@pytest.mark.parametrize("name", ["gated_heads", "mixture_of_heads", "attention_over_heads"])
def test_a_combination_that_reads_the_input_swaps_under_the_same_heads(name):
    layer, x = grouped(), draw(B, T, M)
    heads = layer.heads(x)
    assert "combine.weight" not in layer.combine_with("gated_heads", rng=0)  # kept
    layer.combine_with(name, rng=0)
    np.testing.assert_array_equal(layer.heads(x), heads)
    np.testing.assert_array_equal(layer(x), layer.combine(heads, x))


def test_a_layer_takes_a_class_or_an_object_in_place_of_a_name():
    for combination in (Gate, Gate()):
        assert (
            mhakit.MultiHeadAttention(M, H, combine=combination, rng=0).combination.name == "gate"
        )
