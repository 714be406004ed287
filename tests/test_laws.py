"""Laws of attention, on inputs that hypothesis draws."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import mhakit
from mhakit.testing import Sizes, draw

RATIOS = st.sampled_from([(1, 1), (4, 2), (3, 1), (2, 2)])


@st.composite
def problems(draw_from, least_sources=1):
    H, G = draw_from(RATIOS)
    sizes = Sizes(
        draw_from(st.integers(1, 2)), H, G,
        draw_from(st.integers(1, 20)), draw_from(st.integers(least_sources, 80)),
        draw_from(st.integers(1, 20)), draw_from(st.integers(1, 20)),
    )  # fmt: skip
    dtype = draw_from(st.sampled_from([np.float32, np.float64]))
    return draw(sizes, dtype, seed=draw_from(st.integers(0, 2**32 - 1)))


def near(dtype, scale=1.0):
    return scale * (2e-6 if dtype == np.float32 else 1e-14)


laws = settings(deadline=None, max_examples=30)


@laws
@given(problems(), st.floats(-30, 30))
def test_a_constant_added_to_a_rows_scores_changes_nothing(arrays, constant):
    query = arrays[0]
    bias = np.full((1, 1, query.shape[2], 1), constant, query.dtype)
    plain, moved = mhakit.attention(*arrays), mhakit.attention(*arrays, bias=bias)
    np.testing.assert_allclose(moved, plain, atol=near(query.dtype, 1 + abs(constant)))


@laws
@given(problems(), st.randoms(use_true_random=False))
def test_permuting_heads_permutes_the_output(arrays, random):
    query, key, value = arrays
    G = key.shape[1]
    order = list(range(G))
    random.shuffle(order)
    ratio = query.shape[1] // G
    query_order = [g * ratio + r for g in order for r in range(ratio)]
    moved = mhakit.attention(query[:, query_order], key[:, order], value[:, order])
    np.testing.assert_array_equal(moved, mhakit.attention(query, key, value)[:, query_order])


@laws
@given(problems(), st.randoms(use_true_random=False))
def test_permuting_sources_with_their_values_changes_nothing(arrays, random):
    query, key, value = arrays
    order = list(range(key.shape[2]))
    random.shuffle(order)
    moved = mhakit.attention(query, key[:, :, order], value[:, :, order])
    np.testing.assert_allclose(
        moved, mhakit.attention(query, key, value), atol=near(query.dtype, 2)
    )


@laws
@given(problems())
def test_one_source_returns_its_value(arrays):
    query, key, value = arrays
    output = mhakit.attention(query, key[:, :, :1], value[:, :, :1])
    expected = np.repeat(value[:, :, :1], query.shape[1] // key.shape[1], axis=1)
    np.testing.assert_array_equal(output, np.broadcast_to(expected, output.shape))


@laws
@given(problems())
def test_a_row_lies_in_the_hull_of_its_values(arrays):
    query, key, value = arrays
    output = mhakit.attention(query, key, value)
    value = np.repeat(value, query.shape[1] // key.shape[1], axis=1)
    slack = near(query.dtype, np.abs(value).max())
    assert (output >= value.min(axis=2, keepdims=True) - slack).all()
    assert (output <= value.max(axis=2, keepdims=True) + slack).all()


@laws
@given(problems(least_sources=2), st.data())
def test_a_masked_source_equals_a_removed_one(arrays, data):
    query, key, value = arrays
    S = key.shape[2]
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=S, max_size=S)))
    masked, lse = mhakit.attention(query, key, value, mask=kept, return_lse=True)
    removed, removed_lse = mhakit.attention(
        query, key[:, :, kept], value[:, :, kept], return_lse=True
    )
    np.testing.assert_allclose(masked, removed, atol=near(query.dtype, 2))
    np.testing.assert_allclose(lse, removed_lse, atol=near(query.dtype, 4))


@laws
@given(problems(), st.data())
def test_merging_two_parts_equals_the_whole(arrays, data):
    query, key, value = arrays
    cut = data.draw(st.integers(0, key.shape[2]))
    parts = [
        mhakit.attention(query, key[:, :, span], value[:, :, span], return_lse=True)
        for span in (slice(None, cut), slice(cut, None))
    ]
    merged, merged_lse = mhakit.merge_attention(*parts)
    whole, lse = mhakit.attention(query, key, value, return_lse=True)
    np.testing.assert_allclose(merged, whole, atol=near(query.dtype, 2))
    np.testing.assert_allclose(merged_lse, lse, atol=near(query.dtype, 4))


@laws
@given(problems())
def test_a_sink_takes_the_weight_that_lse_says(arrays):
    query, key, value = arrays
    sinks = np.linspace(-1, 2, query.shape[1])
    plain, lse = mhakit.attention(query, key, value, return_lse=True)
    sunk = mhakit.attention(query, key, value, sinks=sinks)
    kept = 1 / (1 + np.exp(sinks[None, :, None] - lse))
    np.testing.assert_allclose(sunk, plain * kept[..., None], atol=near(query.dtype, 4))
