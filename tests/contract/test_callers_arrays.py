"""Line 6 of the contract: callers' arrays are read as they lie and never written."""

import mmap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import mhakit
from material.arrays import unaligned
from material.contract import FUNCTIONS, SIZES, hiding_keywords
from mhakit.api.attending import attention_and_weights
from mhakit.problem import computation_dtype
from mhakit.testing import Sizes, assert_within, budget, draw


@pytest.mark.parametrize("function", [*FUNCTIONS, "explain"])
def test_6_callers_arrays_are_never_written(function, dtype, backend):
    query, key, value = draw(SIZES, dtype)
    keywords, _ = hiding_keywords("mask")
    keywords["bias"] = np.ones((SIZES.T, SIZES.S), np.float64)
    keywords["key_lengths"] = np.array([SIZES.S // 4, SIZES.S - 2])
    given = [query, key, value, *keywords.values()]
    before = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    arrays = (query, key, value) if function in ("attention", "explain") else (query, key)
    getattr(mhakit, function)(*arrays, **keywords, backend=backend)
    for was, now in zip(before, given, strict=True):
        np.testing.assert_array_equal(was, now)


def strided(array, kind):
    """Return the same numbers lying differently in memory."""
    if kind == "every second":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if kind == "backwards":
        return np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]
    if kind == "transposed":
        return np.ascontiguousarray(array.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    if kind == "unaligned":
        return unaligned(array)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["every second", "backwards", "transposed", "unaligned"])
def test_6_strides_change_no_bit_and_make_no_copy(kind, dtype):
    sizes = Sizes(2, 4, 2, 70, 150, 64, 64)
    arrays = draw(sizes, dtype)
    plain = mhakit.attention(*arrays, causal="bottom_right")
    views = [strided(array, kind) for array in arrays]
    out = strided(np.zeros_like(plain), kind)
    mhakit.attention(*views, causal="bottom_right", out=out)
    tracemalloc.start()
    mhakit.attention(*views, causal="bottom_right", out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(out, plain)
    both = [attention_and_weights(*given, causal="bottom_right") for given in (arrays, views)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)
    scratch = mhakit.explain(*views, causal="bottom_right").scratch_bytes
    assert peak - scratch < min(array.nbytes for array in arrays) / 2, "an input was copied"


def test_6_the_BTHD_layout_takes_and_gives_the_same_numbers(dtype, backend):
    query, key, value = draw(SIZES, dtype)
    plain = mhakit.attention(query, key, value, backend=backend)
    swapped = [np.ascontiguousarray(array.swapaxes(1, 2)) for array in (query, key, value)]
    result, lse = mhakit.attention(*swapped, layout="BTHD", return_lse=True, backend=backend)
    assert result.flags.c_contiguous
    assert lse.shape == (SIZES.B, SIZES.H, SIZES.T)
    np.testing.assert_array_equal(result.swapaxes(1, 2), plain)
    weights = mhakit.attention_weights(*swapped[:2], layout="BTHD", backend=backend)
    np.testing.assert_array_equal(weights, mhakit.attention_weights(query, key, backend=backend))
    summed = mhakit.weighted_sum(weights, swapped[2], layout="BTHD", backend=backend)
    assert summed.shape == result.shape
    both = attention_and_weights(*swapped, layout="BTHD", backend=backend)
    assert both[0].flags.c_contiguous
    np.testing.assert_array_equal(both[1], weights)
    plain, _ = attention_and_weights(query, key, value, backend=backend)
    np.testing.assert_array_equal(both[0].swapaxes(1, 2), plain)


def test_6_outputs_that_were_poisoned_are_written_throughout(dtype, backend):
    query, key, value = draw(SIZES, dtype)
    keywords, _ = hiding_keywords("window")
    out = np.full((SIZES.B, SIZES.H, SIZES.T, SIZES.E), np.nan, dtype)
    assert mhakit.attention(query, key, value, **keywords, out=out, backend=backend) is out
    expected, _ = budget("attention", query, key, value, **keywords)
    assert_within(out, expected)
    scores = np.full((SIZES.B, SIZES.H, SIZES.T, SIZES.S), np.nan, computation_dtype(dtype))
    mhakit.attention_scores(query, key, **keywords, out=scores, backend=backend)
    assert not np.isnan(scores).any()


def test_without_B_everything_is_the_first_of_a_batch(dtype, backend):
    query, key, value = draw(Sizes(1, 4, 2, 9, 12, 8, 8), dtype)
    keywords = {"key_lengths": 11, "causal": True, "query_offset": 2, "sinks": np.ones(4)}
    mask = np.random.default_rng(0).random((4, 9, 12)) < 0.8
    output, lse = mhakit.attention(
        query[0], key[0], value[0], mask=mask, **keywords, return_lse=True, backend=backend
    )
    expected, expected_lse = mhakit.attention(
        query, key, value, mask=mask[None], **keywords, return_lse=True, backend=backend
    )
    np.testing.assert_array_equal(output, expected[0])
    np.testing.assert_array_equal(lse, expected_lse[0])
    weights = mhakit.attention_weights(query[0], key[0], heads=[1], backend=backend)
    assert weights.shape == (1, 9, 12)
    merged, _ = mhakit.merge_attention((output, lse), backend=backend)
    np.testing.assert_array_equal(merged, output)


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="pages are guarded by POSIX's mprotect")
@pytest.mark.parametrize("T", [1, 37])
def test_6_nothing_beyond_the_arrays_is_read_or_written(T, dtype, run_fresh):
    printed = run_fresh(
        f"""
        import numpy as np, ml_dtypes
        import mhakit
        from material.guarded import at_the_end
        from mhakit.testing import Sizes, draw

        for S, D, E in ((1, 1, 1), (5, 3, 7), (64, 16, 8), (131, 40, 24)):
            arrays = draw(Sizes(1, 2, 1, {T}, S, D, E), np.dtype("{np.dtype(dtype).name}"))
            plain = mhakit.attention(*arrays)
            bias = at_the_end(np.ones(({T}, S), np.float32))
            mask = at_the_end(np.ones(({T}, S), bool))
            guarded = [at_the_end(array) for array in arrays]
            out = at_the_end(np.zeros_like(plain))
            for keywords in ({{}}, {{"bias": bias}}, {{"mask": mask}}, {{"causal": "bottom_right"}}):
                expected = mhakit.attention(*arrays, **keywords)
                assert np.array_equal(mhakit.attention(*guarded, **keywords, out=out), expected)
        print("intact")
        """,
        path=Path(__file__).parents[1],
    )
    assert printed == "intact"
