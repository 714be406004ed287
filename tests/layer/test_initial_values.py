"""How a layer's parameters begin."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.layers import Gate, H, M
from mhakit.errors import PluginError
from mhakit.plugin_api import ParameterSpec


def test_initial_values_are_spread_as_torch_spreads_them():
    width = 48
    layer = mhakit.MultiHeadAttention(width, 4, rng=0)
    for name in ("query_weight", "key_weight", "value_weight"):
        values = getattr(layer, name)
        bound = np.sqrt(6 / (4 * width))
        assert 0.99 * bound < np.abs(values).max() <= bound
        assert abs(values.std() - bound / np.sqrt(3)) < 0.03 * bound
    out = layer.parameters()["combine.weight"]
    assert 0.99 / np.sqrt(width) < np.abs(out).max() <= 1 / np.sqrt(width)
    for name in ("query_bias", "key_bias", "value_bias", "combine.bias"):
        assert not layer.parameters()[name].any()


def test_other_widths_are_spread_by_the_matrix_they_stand_in():
    layer = mhakit.MultiHeadAttention(48, 4, num_kv_heads=2, head_width=24, value_width=8, rng=0)
    bound = np.sqrt(6 / (48 + 4 * 24 + 2 * 24 + 2 * 8))
    assert 0.99 * bound < np.abs(layer.query_weight).max() <= bound


def test_the_same_seed_gives_the_same_layer():
    first, again, other = (mhakit.MultiHeadAttention(M, H, rng=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.query_weight, again.query_weight)
    assert not np.array_equal(first.query_weight, other.query_weight)
    generator = mhakit.MultiHeadAttention(M, H, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(
        first.parameters()["combine.weight"], generator.parameters()["combine.weight"]
    )


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("zeros", np.zeros((3, 3))),
        ("ones", np.ones((3, 3))),
        ("identity", np.eye(3)),
        (lambda rng, shape: np.full(shape, 2.0), np.full((3, 3), 2.0)),
    ],
)
def test_a_combination_says_how_its_parameters_begin(init, expected):
    class Begun(Gate):
        def parameters(self, shape):
            return {**super().parameters(shape), "extra": ParameterSpec((3, 3), init)}

    layer = mhakit.MultiHeadAttention(M, H, combine=Begun, rng=0)
    np.testing.assert_array_equal(layer.parameters()["combine.extra"], expected)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            ParameterSpec((3,), "gaussian"),
            r"'extra' of shape \(3,\) by a function .*got 'gaussian'",
        ),
        (ParameterSpec((3,), "identity"), r"'extra' of shape \(3,\) .*got 'identity'"),
        (ParameterSpec((), "uniform_fan_in"), r"'extra' of shape \(\) .*got 'uniform_fan_in'"),
        (ParameterSpec((3,), lambda rng, shape: np.ones(4)), r"'extra' with shape \(3,\), got .*4"),
        (ParameterSpec((3,), lambda rng, shape: 1 / 0), r"'extra' without an error, got ZeroDiv"),
    ],
)
def test_a_beginning_that_makes_no_sense_is_refused(spec, told):
    class Begun(Gate):
        def parameters(self, shape):
            return {"extra": spec}

    with pytest.raises(PluginError, match=r"combination 'gate' must initialise " + told):
        mhakit.MultiHeadAttention(M, H, combine=Begun, rng=0)
