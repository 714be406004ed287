"""How a layer's parameters are read and set."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.layers import B, D, E, G, H, M, T, grouped, owner
from mhakit.errors import DTypeError, ParameterError, ShapeError


def test_parameters_are_read_only_views_of_one_matrix():
    layer = grouped()
    parameters = layer.parameters()
    assert {name: view.shape for name, view in parameters.items()} == {
        "query_weight": (H, M, D),
        "key_weight": (G, M, D),
        "value_weight": (G, M, E),
        "query_bias": (H, D),
        "key_bias": (G, D),
        "value_bias": (G, E),
        "combine.weight": (H * E, M),
        "combine.bias": (M,),
    }
    for view in parameters.values():
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    assert len({id(owner(parameters[f"{name}_weight"])) for name in ("query", "key", "value")}) == 1
    for name, view in parameters.items():
        if "." not in name:
            np.testing.assert_array_equal(getattr(layer, name), view)
    assert not np.shares_memory(layer.query_weight, layer.key_weight)


def test_setting_a_parameter_changes_it_alone_and_copies_the_array():
    layer = grouped()
    before = {name: view.copy() for name, view in layer.parameters().items()}
    value = draw(G, M, D, seed=9, dtype=np.float32)
    layer.key_weight = value
    kept = value.copy()
    value[...] = 0
    for name, view in layer.parameters().items():
        np.testing.assert_array_equal(view, kept if name == "key_weight" else before[name])


def test_the_combinations_parameters_are_set_by_their_names():
    layer = grouped()
    layer.set_parameters({"combine.weight": np.zeros((H * E, M)), "combine.bias": np.arange(12.0)})
    np.testing.assert_array_equal(layer(draw(B, T, M)), np.broadcast_to(np.arange(12.0), (B, T, M)))


@pytest.mark.parametrize(
    ("name", "value", "error", "told"),
    [
        (
            "qwery_weight",
            draw(1),
            ParameterError,
            r"of this layer must be: query_weight, .*got 'qw",
        ),
        ("weight", draw(H * E, M), ParameterError, r"must be: .*combine.weight.*, got 'weight'"),
        ("key_weight", draw(H, M, D), ShapeError, r"key_weight must have shape \(2, 12, 3\)"),
        ("combine.bias", draw(3), ShapeError, r"combine.bias must have shape \(12,\).*\(3,\)"),
        ("key_bias", np.ones((G, D), int), DTypeError, r"key_bias must be float64.*got int64"),
        ("key_bias", [[0.0]], DTypeError, r"key_bias must be an array, got list"),
    ],
)
def test_parameters_are_set_all_or_none(name, value, error, told):
    layer = grouped()
    before = {key: view.copy() for key, view in layer.parameters().items()}
    with pytest.raises(error, match=told):
        layer.set_parameters({"query_weight": draw(H, M, D, seed=8), name: value})
    for key, view in layer.parameters().items():
        np.testing.assert_array_equal(view, before[key])


def test_parameters_that_are_no_mapping_are_refused():
    with pytest.raises(ParameterError, match=r"parameters must be a mapping .*got list"):
        grouped().set_parameters([])


def test_a_layer_without_bias_has_none_to_read_or_set():
    layer = mhakit.MultiHeadAttention(M, H, bias=False, rng=0)
    assert layer.query_bias is None
    with pytest.raises(ParameterError, match=r"parameters of this layer must be: .*'query_bias'"):
        layer.query_bias = draw(H, 2)


def test_all_parameters_are_of_the_layers_dtype(dtype):
    layer = mhakit.MultiHeadAttention(M, H, dtype=dtype, rng=0)
    layer.combine_with("average", parameters={"combine.weight": draw(2, M)}, rng=0)
    layer.query_weight = draw(H, M, 2)
    assert {view.dtype for view in layer.parameters().values()} == {dtype}
