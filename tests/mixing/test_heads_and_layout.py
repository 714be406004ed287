"""Sizes, order of heads, layout and callers' arrays of mixed attention, and how parameters begin."""

import numpy as np
import pytest

import mhakit
from material.mixings import B, ByWord, G, H, K, S, T, V, budgets, inputs
from mhakit.testing import Budget, assert_within


@pytest.mark.parametrize("sizes", [(2, 0, 5), (2, 3, 0), (0, 3, 5)])
def test_empty_sizes_work(sizes, backend):
    b, t, s = sizes
    shapes = ((b, 4, t, 8), (b, 4, s, 8), (b, 4, s, 6))
    learned = mhakit.mixing_parameters("talking_heads", score_heads=4)
    output, weights = mhakit.mixed_attention(
        *(np.ones(shape, np.float32) for shape in shapes), "talking_heads", learned,
        return_weights=True, backend=backend,
    )  # fmt: skip
    assert output.shape == (b, 4, t, 6)
    assert not output.any()
    assert weights.shape == (b, 4, t, s)


def test_permuting_heads_permutes_or_changes_nothing(backend):
    rng = np.random.default_rng(1)
    (query, key, value), learned = inputs()
    mask = rng.random((B, H, T, S)) < 0.7
    P, W = learned["score_projection"], learned["weight_projection"]
    allowed = budgets([query, key, value], learned, mask)[0]

    def run(query, key, value, P, W, mask):
        return mhakit.mixed_attention(
            query, key, value, "talking_heads", {"score_projection": P, "weight_projection": W},
            softmax_heads=H, mask=mask, backend=backend,
        )  # fmt: skip

    groups, h, k = rng.permutation(G), rng.permutation(H), np.arange(V)[::-1]
    i = (groups[:, None] * (K // G) + np.arange(K // G)).ravel()
    assert_within(run(query[:, i], key[:, groups], value, P[i], W, mask), allowed, "score heads")
    assert_within(run(query, key, value, P[:, h], W[h], mask[:, h]), allowed, "softmax heads")
    permuted = Budget(allowed.exact[:, k], allowed.allowed)
    assert_within(run(query, key, value[:, k], P, W[:, k], mask), permuted, "value heads")
    s = rng.permutation(S)
    assert_within(run(query, key[:, :, s], value[:, :, s], P, W, mask[..., s]), allowed, "sources")
    with pytest.raises(AssertionError, match="error"):
        assert_within(run(query, key, value, P[:, np.roll(h, 1)], W[h], mask[:, h]), allowed)


def test_layout_and_a_missing_B_change_nothing(backend):
    arrays, learned = inputs(np.float32)
    keywords = {"softmax_heads": H, "causal": "top_left", "backend": backend}
    plain = mhakit.mixed_attention(*arrays, "talking_heads", learned, **keywords)
    swapped = [np.ascontiguousarray(array.swapaxes(1, 2)) for array in arrays]
    result = mhakit.mixed_attention(*swapped, "talking_heads", learned, layout="BTHD", **keywords)
    np.testing.assert_array_equal(result.swapaxes(1, 2), plain)
    one, weights = mhakit.mixed_attention(
        *(array[1] for array in arrays), "talking_heads", learned, return_weights=True, **keywords
    )
    np.testing.assert_array_equal(one, plain[1])
    assert weights.shape == (V, T, S)


def test_callers_arrays_are_never_written(backend):
    arrays, learned = inputs(np.float32, heads=(6, 6, 6))
    x = np.ones((B, S, 3), np.float32)
    mask = np.random.default_rng(0).random((B, 6, T, S)) < 0.5
    bias = np.ones((6, T, S), np.float32)
    given = [*arrays, *learned.values(), x, mask, bias]
    before = [array.copy() for array in given]  # kernels write by address, whatever the flag says
    for array in given:
        array.flags.writeable = False
    mhakit.mixed_attention(*arrays, "talking_heads", learned, mask=mask, bias=bias, backend=backend)
    mhakit.mixed_attention(
        *arrays, ByWord, hidden_states=x[:, :T], source_states=x, mask=mask, backend=backend
    )
    for was, now in zip(before, given, strict=True):
        np.testing.assert_array_equal(was, now)


def test_mixing_parameters_begin_as_the_mixing_says():
    learned = mhakit.mixing_parameters(
        "talking_heads", score_heads=6, softmax_heads=4, value_heads=2, dtype=np.float64
    )
    np.testing.assert_array_equal(learned["score_projection"], np.eye(6, 4))
    np.testing.assert_array_equal(learned["weight_projection"], np.eye(4, 2))
