"""What a layer refuses: sizes, inputs, sources, heads and keywords."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.layers import B, E, H, M, S, T, grouped
from mhakit.errors import DTypeError, ParameterError, PluginError, ShapeError


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"model_width": 0}, ParameterError, r"model_width must be an int of at least 1, got 0"),
        ({"model_width": 12.0}, ParameterError, r"model_width must be an int .*got 12.0"),
        ({"num_heads": True}, ParameterError, r"num_heads must be an int of at least 1, got True"),
        (
            {"num_heads": 5},
            ParameterError,
            r"model_width must be a multiple of num_heads=5 .*got 12",
        ),
        ({"num_kv_heads": 4}, ParameterError, r"num_kv_heads must divide num_heads=6, got 4"),
        ({"head_width": -1}, ParameterError, r"head_width must be an int of at least 1, got -1"),
        ({"value_width": "4"}, ParameterError, r"value_width must be an int .*got '4'"),
        ({"bias": None}, ParameterError, r"bias must be True or False, got None"),
        ({"dtype": int}, DTypeError, r"dtype must be float64, float32, float16 .*got .*int"),
        ({"dtype": None}, DTypeError, r"dtype must be float64, .*got None"),
        ({"dtype": "flaot32"}, DTypeError, r"dtype must be float64, .*got 'flaot32'"),
        ({"dtype": ">f4"}, DTypeError, r"dtype must be float64, .*got '>f4'"),
        ({"rng": "seed"}, ParameterError, r"rng must be None, an int .*got 'seed'"),
        ({"combine": "nothing like it"}, PluginError, r"combination must be an installed name"),
        ({"combine": 7}, ParameterError, r"combination must be an installed name, .*got 7"),
    ],
)
def test_sizes_that_make_no_layer_are_refused(arguments, error, told):
    with pytest.raises(error, match=told):
        mhakit.MultiHeadAttention(**{"model_width": M, "num_heads": H, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "told"),
    [
        (draw(M), ShapeError, r"x must be \(B, T, M\) or \(T, M\) with M=12, got shape \(12,\)"),
        (draw(1, B, T, M), ShapeError, r"x must be \(B, T, M\) or \(T, M\)"),
        (draw(B, T, M + 1), ShapeError, r"x must be .*M=12, got shape \(2, 5, 13\)"),
        (
            draw(B, T, M, dtype=np.float32),
            DTypeError,
            r"x must have the layer's dtype, float64, got",
        ),
        ([[0.0] * M], DTypeError, r"x must be an array, got list"),
        (np.ones((T, M), int), DTypeError, r"x must be float64.*got int64"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(x, error, told):
    layer = grouped()
    for verb in (layer, layer.heads, layer.project):
        with pytest.raises(error, match=told):
            verb(x)


@pytest.mark.parametrize(
    ("source", "error", "told"),
    [
        (
            draw(S, M),
            ShapeError,
            r"source must be \(B, S, M\) with B=2 and M=12 as x is, got shape",
        ),
        (draw(B + 1, S, M), ShapeError, r"source must be \(B, S, M\) with B=2 and M=12"),
        (draw(B, S, M - 1), ShapeError, r"source must be \(B, S, M\) with B=2 and M=12"),
        (draw(B, S, M, dtype=np.float32), DTypeError, r"source must have the layer's dtype"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, error, told):
    with pytest.raises(error, match=told):
        grouped()(draw(B, T, M), source)


def test_a_source_with_a_batch_is_refused_where_the_input_has_none():
    with pytest.raises(ShapeError, match=r"source must be \(S, M\) with M=12 as x is"):
        grouped()(draw(T, M), draw(1, S, M))


def test_heads_of_other_sizes_are_not_combined():
    layer = grouped()
    with pytest.raises(ShapeError, match=r"heads must be .* with H=6 and E=4, got shape"):
        layer.combine(draw(B, H, T, E + 1))
    with pytest.raises(
        ShapeError, match=r"hidden_states must be \(B, T, M\) = \(2, 5, 12\) as heads is, got shape"
    ):
        layer.combine(draw(B, H, T, E), draw(B, T + 1, M))


def test_a_keyword_that_a_layer_does_not_take_is_refused():
    for keyword in ("maks", "layout", "out", "return_lse"):
        with pytest.raises(TypeError, match=f"a layer takes no keyword '{keyword}'"):
            grouped()(draw(B, T, M), **{keyword: None})


def test_what_attention_refuses_the_layer_refuses():
    with pytest.raises(ParameterError, match=r"causal=True must come with T = S"):
        grouped()(draw(B, T, M), draw(B, S, M), causal=True)
