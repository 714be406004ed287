"""What a layer projects, attends and hands to its combination."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.layers import B, D, E, G, H, M, S, T, grouped, owner


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_every_head_projects_with_its_own_weights(cross, bias):
    layer, x, source = grouped(bias=bias), draw(B, T, M), draw(B, S, M, seed=3)
    parts = layer.project(x, source) if cross else layer.project(x)
    of = (x, source, source) if cross else (x, x, x)
    for name, part, words in zip(("query", "key", "value"), parts, of, strict=True):
        weights, biases = getattr(layer, f"{name}_weight"), getattr(layer, f"{name}_bias")
        assert part.shape[1] == weights.shape[0]
        for h in range(weights.shape[0]):
            expected = words @ weights[h] + (biases[h] if bias else 0)
            np.testing.assert_allclose(part[:, h], expected, rtol=1e-13, atol=1e-13)


def test_self_attention_projects_with_one_product_and_copies_nothing():
    query, key, value = grouped().project(draw(B, T, M))
    assert owner(query).size == B * T * (H * D + G * D + G * E)
    assert owner(query) is owner(key) is owner(value)


def test_heads_are_attention_of_the_projections():
    layer, x, source = grouped(), draw(B, T, M), draw(B, S, M, seed=3)
    keywords = {"mask": draw(T, S, seed=4) > 0, "softcap": 5.0, "scale": 0.3, "sinks": draw(H)}
    z = layer.heads(x, source, **keywords)
    expected = mhakit.attention(*layer.project(x, source), **keywords)
    np.testing.assert_array_equal(z, expected)
    assert z.shape == (B, H, T, E)
    assert z.swapaxes(1, 2).flags.c_contiguous


def test_calling_it_combines_the_heads(backend):
    layer, x = grouped(), draw(B, T, M)
    output = layer(x, causal=True, backend=backend)
    z = layer.heads(x, causal=True, backend=backend)
    parameters = layer.parameters()
    expected = z.swapaxes(1, 2).reshape(B, T, H * E) @ parameters["combine.weight"]
    np.testing.assert_allclose(
        output, expected + parameters["combine.bias"], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(layer.combine(z, backend=backend), output)


def test_the_weights_are_returned_where_asked_for():
    layer, x, source = grouped(), draw(B, T, M), draw(B, S, M, seed=3)
    output, weights = layer(x, source, key_lengths=[3, 7], return_weights=True)
    query, key, _ = layer.project(x, source)
    np.testing.assert_allclose(output, layer(x, source, key_lengths=[3, 7]), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(weights, mhakit.attention_weights(query, key, key_lengths=[3, 7]))


def test_the_batch_axis_may_be_left_out():
    layer, x, source = grouped(), draw(B, T, M), draw(B, S, M, seed=3)
    output, weights = layer(x, source, return_weights=True)
    alone, alone_weights = layer(x[1], source[1], return_weights=True)
    np.testing.assert_allclose(alone, output[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(alone_weights, weights[1], rtol=1e-12, atol=1e-12)
    assert [part.shape for part in layer.project(x[1], source[1])] == [
        (H, T, D),
        (G, S, D),
        (G, S, E),
    ]
    assert layer.heads(x[1], source[1]).shape == (H, T, E)


def test_an_empty_sentence_gives_an_empty_result(backend, dtype):
    layer = mhakit.MultiHeadAttention(M, 3, dtype=dtype, rng=0)
    output, weights = layer(np.empty((B, 0, M), dtype), backend=backend, return_weights=True)
    assert (output.shape, weights.shape) == ((B, 0, M), (B, 3, 0, 0))
    assert layer(np.empty((0, T, M), dtype), backend=backend).shape == (0, T, M)


def test_words_that_see_no_source_get_the_combination_of_nothing(backend):
    layer = grouped()
    output = layer(draw(B, T, M), np.empty((B, 0, M)), backend=backend)
    np.testing.assert_array_equal(
        output, np.broadcast_to(layer.parameters()["combine.bias"], (B, T, M))
    )


def test_sixteen_bit_projections_are_computed_in_float32_and_rounded_once():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        layer = mhakit.MultiHeadAttention(M, 3, dtype=dtype, rng=0)
        layer.query_bias = draw(3, 4)
        x = draw(B, T, M, dtype=dtype)
        query = layer.project(x)[0]
        weight = np.ascontiguousarray(layer.query_weight.swapaxes(0, 1)).reshape(M, M)
        wide = x.astype("f") @ weight.astype("f") + layer.query_bias.astype("f").reshape(M)
        expected = wide.reshape(B, T, 3, 4).swapaxes(1, 2)
        assert query.dtype == dtype
        step = float(ml_dtypes.finfo(dtype).eps)  # a tie may fall to either side
        np.testing.assert_allclose(query.astype("f"), expected, rtol=step / 2 * 1.01, atol=1e-6)
        assert layer(x).dtype == dtype


def test_a_transposed_input_gives_the_same():
    layer, x = grouped(), draw(T, B, M)
    np.testing.assert_array_equal(
        layer(x.swapaxes(0, 1)), layer(np.ascontiguousarray(x.swapaxes(0, 1)))
    )
