"""Every function against the float64 reference, within the error budget, over the grid."""

import numpy as np
import pytest

import mhakit
from material.simulation import SIMULATED
from mhakit.testing import GRID, TINY_GRID, Sizes, assert_within, budget, draw

SHAPES = TINY_GRID if SIMULATED else GRID


@pytest.mark.parametrize("name", SHAPES)
def test_attention_stays_in_the_budget_on_every_shape(name, dtype, backend):
    arrays = draw(SHAPES[name], dtype)
    output, lse = mhakit.attention(*arrays, return_lse=True, backend=backend)
    expected, expected_lse = budget("attention", *arrays)
    assert output.dtype == dtype
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")


@pytest.mark.parametrize("name", SHAPES)
def test_scores_and_weights_stay_in_the_budget_on_every_shape(name, dtype, backend):
    query, key, _ = draw(SHAPES[name], dtype)
    (expected,) = budget("attention_scores", query, key)
    assert_within(mhakit.attention_scores(query, key, backend=backend), expected, "scores")
    (expected,) = budget("attention_weights", query, key)
    weights = mhakit.attention_weights(query, key, backend=backend)
    assert weights.dtype == dtype
    assert_within(weights, expected, "weights")


@pytest.mark.parametrize("other", ["float64", "float32", "float16", "bfloat16"])
def test_a_bias_of_any_dtype_repeats_along_any_axis(other, dtype, backend):
    sizes = Sizes(2, 4, 2, 3, 5, 4, 12) if SIMULATED else Sizes(2, 8, 2, 20, 70, 16, 32)
    # Of bounded numbers: where one outlier makes the whole error, luck decides whether the plain
    # formula, and with it the budget, is right.
    rng = np.random.default_rng()
    arrays = [rng.uniform(-1, 1, array.shape).astype(dtype) for array in draw(sizes, dtype)]
    B, H, T, S = sizes.B, sizes.H, sizes.T, sizes.S
    for shape in ((1,), (S,), (T, 1), (H, 1, 1), (B, 1, T, 1), (B, 1, 1, S)):
        keywords = {"bias": rng.uniform(-1, 1, shape).astype(np.dtype(other))}
        expected, expected_lse = budget("attention", *arrays, **keywords)
        output, lse = mhakit.attention(*arrays, **keywords, return_lse=True, backend=backend)
        assert_within(output, expected, str(shape))
        assert_within(lse, expected_lse, f"lse, {shape}")


@pytest.mark.parametrize("gap", [3.0, 40.0, 130.0, 1500.0])
def test_a_score_far_below_the_top_weighs_what_it_should_or_nothing(gap, dtype, backend):
    H, T, S, E = (3, 9, 20, 24) if SIMULATED else (8, 17, 40, 64)
    rng = np.random.default_rng()
    value = rng.standard_normal((1, H, S, E)).astype(dtype)
    # Each row's scores stand in an order of its own: of a few orders the plain formula, and with
    # it the budget, is now and then right by luck.
    query = np.broadcast_to(np.eye(T, dtype=dtype), (1, H, T, T))
    order = rng.permuted(np.broadcast_to(np.arange(S)[:, None], (1, H, S, T)), axis=2)
    key = (-gap * order).astype(dtype)
    (expected, _) = budget("attention", query, key, value, scale=1.0)
    assert_within(mhakit.attention(query, key, value, scale=1.0, backend=backend), expected)


@pytest.mark.parametrize("name", ["no two sizes equal", "several tiles of several blocks"])
def test_the_parallel_and_the_serial_form_stay_in_the_budget(name, dtype, form):
    query, key, value = draw(SHAPES[name], dtype, seed=3)
    weights = mhakit.attention_weights(query, key)
    for function, arrays in {
        "attention": (query, key, value),
        "attention_scores": (query, key),
        "attention_weights": (query, key),
        "weighted_sum": (weights, value),
        "softmax": (weights,),
    }.items():
        expected = budget(function, *arrays)[0]
        assert_within(getattr(mhakit, function)(*arrays), expected, function)


def test_the_five_steps_one_by_one_give_attention(dtype, backend):
    query, key, value = draw(SHAPES["no two sizes equal"], dtype)
    D = query.shape[-1]
    bare = mhakit.attention_scores(query, key, scale=1.0, backend=backend)
    scaled = bare / bare.dtype.type(np.sqrt(D))
    np.testing.assert_allclose(
        scaled, mhakit.attention_scores(query, key, backend=backend), rtol=1e-6
    )
    weights = mhakit.softmax(scaled.astype(dtype), backend=backend)
    summed = mhakit.weighted_sum(weights, value, backend=backend)
    attended = mhakit.attention(query, key, value, backend=backend)
    tolerance = {"float64": 1e-14, "float32": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}[dtype.name]
    np.testing.assert_allclose(summed.astype(float), attended.astype(float), atol=tolerance)


def test_the_weighted_sum_leaves_out_what_has_no_weight(dtype, backend):
    _, _, value = draw(SHAPES["more sources than targets"], dtype)
    S = value.shape[2]
    seen = S * 3 // 4
    weights = np.zeros((2, 2, 3, S), dtype)
    weights[..., seen] = 1
    value[:, :, :seen] = np.nan
    result = mhakit.weighted_sum(weights, value, backend=backend)
    for h in range(2):
        for t in range(3):
            np.testing.assert_array_equal(result[:, h, t], value[:, 0, seen])


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 130), (2, 3, 4, 30 if SIMULATED else 300)])
def test_softmax_takes_any_rank_from_one_to_four(shape, dtype, backend):
    scores = (4 * np.random.default_rng(1).standard_normal(shape)).astype(dtype)
    result = mhakit.softmax(scores, backend=backend)
    wide = scores.reshape((1,) * (4 - len(shape)) + shape)
    (expected,) = budget("softmax", wide)
    assert_within(result.reshape(wide.shape), expected)
    assert result.shape == shape


def test_softmax_counts_a_sink_and_gives_it_nothing(dtype, backend):
    scores = np.random.default_rng(2).standard_normal((2, 3, 5, 40)).astype(dtype)
    sinks = np.array([0.5, -np.inf, 3.0])
    result = mhakit.softmax(scores, sinks=sinks, backend=backend)
    (expected,) = budget("softmax", scores, sinks=sinks)
    assert_within(result, expected)
    total = result.astype(float).sum(axis=-1)
    assert (total[:, 0] < 0.999).all()
    np.testing.assert_allclose(total[:, 1], 1, atol=0.05)


def test_softmax_may_write_over_its_own_copy(backend):
    scores = np.random.default_rng(2).standard_normal((3, 40))
    out = np.full_like(scores, np.nan)
    assert mhakit.softmax(scores, out=out, backend=backend) is out
    np.testing.assert_allclose(out.sum(axis=-1), 1)


def test_softmax_is_not_moved_by_a_large_constant(backend):
    scores = np.random.default_rng(4).standard_normal((4, 50)).astype(np.float32)
    moved = (scores + np.float32(4096)) - np.float32(4096)  # what survives the rounding
    shifted = mhakit.softmax(moved + np.float32(4096), backend=backend)
    np.testing.assert_allclose(shifted, mhakit.softmax(moved, backend=backend), atol=2e-7)


def test_softmax_of_a_row_that_sees_nothing_is_0(dtype, backend):
    scores = np.zeros((2, 3, 40), dtype)
    scores[:, 1] = -np.inf
    result = mhakit.softmax(scores, backend=backend)
    assert not result[:, 1].any()
    (expected,) = budget("softmax", scores[:, ::2])
    assert_within(result[:, ::2], expected)


@pytest.mark.parametrize("at", [3, 40_000, 99_999])
def test_softmax_finds_the_top_of_a_long_row_wherever_it_is(at, backend):
    scores = np.random.default_rng(6).standard_normal((2, 100_000)).astype(np.float32)
    scores[0, at] = 1000
    result = mhakit.softmax(scores, backend=backend)
    (expected,) = budget("softmax", scores)
    assert_within(result, expected)
    assert result[0, at] == 1


def test_weights_of_chosen_heads_and_targets_are_rows_of_all_weights(dtype, backend):
    query, key, _ = draw(
        Sizes(2, 6, 3, 4, 5, 8, 8) if SIMULATED else Sizes(2, 6, 3, 40, 50, 8, 8), dtype
    )
    T, S = query.shape[2], key.shape[2]
    keywords = {"causal": "bottom_right", "softcap": 5.0, "key_lengths": [S, S * 3 // 5]}
    everything = mhakit.attention_weights(query, key, **keywords, backend=backend)
    heads, queries = [-1, 2, 2], np.array([T - 1, 0, -3], dtype=np.int32)
    chosen = mhakit.attention_weights(
        query, key, **keywords, heads=heads, queries=queries, backend=backend
    )
    np.testing.assert_array_equal(chosen, everything[:, heads][:, :, queries])


def test_weights_of_no_heads_or_targets_are_empty(backend):
    query, key, _ = draw(SHAPES["no two sizes equal"], np.float32)
    assert mhakit.attention_weights(query, key, heads=[], backend=backend).shape == (2, 0, 5, 7)
    assert mhakit.attention_weights(query, key, queries=[], backend=backend).shape == (2, 6, 0, 7)


def test_merging_two_halves_gives_the_whole(dtype, backend):
    query, key, value = draw(SHAPES["more sources than targets"], dtype)
    parts = [
        mhakit.attention(query, key[:, :, span], value[:, :, span], return_lse=True)
        for span in (slice(0, 12), slice(12, 13), slice(13, None))
    ]
    output, lse = mhakit.merge_attention(*parts, backend=backend)
    expected, expected_lse = budget("merge_attention", *parts)
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")
    whole, whole_lse = mhakit.attention(query, key, value, return_lse=True)
    rounding = {"float64": 1e-14, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype.name]
    np.testing.assert_allclose(output.astype(float), whole.astype(float), atol=rounding)
    np.testing.assert_allclose(lse, whole_lse, atol=1e-5)


def test_merging_parts_that_saw_nothing_gives_nothing(backend):
    query, key, value = draw(SHAPES["no two sizes equal"], np.float32)
    empty = mhakit.attention(query, key, value, key_lengths=0, return_lse=True)
    full = mhakit.attention(query, key, value, return_lse=True)
    output, lse = mhakit.merge_attention(empty, empty, backend=backend)
    assert not output.any()
    assert (lse == -np.inf).all()
    empty[0][...] = np.nan  # its lse says that it counts for nothing
    output, lse = mhakit.merge_attention(empty, full, backend=backend)
    np.testing.assert_array_equal(output, full[0])
    np.testing.assert_array_equal(lse, full[1])


@pytest.mark.parametrize("causal", [None, True])
def test_long_sequences_run_in_slices_and_give_the_same(causal, monkeypatch):
    from mhakit.backends.cpu import slices

    arrays = draw(Sizes(2, 4, 2, 200, 200, 16, 16), np.float32)
    whole = mhakit.attention(*arrays, causal=causal)
    monkeypatch.setattr(slices, "SLICE", 1e3)
    np.testing.assert_array_equal(mhakit.attention(*arrays, causal=causal), whole)
