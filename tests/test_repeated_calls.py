"""Calls like an earlier one are answered without its checks, on arrays that lie elsewhere."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.arrays import unaligned
from mhakit.api import repeating
from mhakit.testing import Sizes, draw
from mhakit.validation import visibility

FEW, MANY = Sizes(2, 4, 2, 3, 1100, 24, 20), Sizes(2, 6, 3, 37, 70, 16, 9)
DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)


def checked(query, key, value, **keywords):
    """Return the output of a call that is no repeated one."""
    out = np.full((*query.shape[:-1], value.shape[-1]), np.nan, query.dtype)
    assert mhakit.attention(query, key, value, out=out, **keywords) is out
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [FEW, MANY])
def test_every_repetition_is_of_its_own_arrays(sizes, dtype):
    for seed in range(4):
        arrays = draw(sizes, dtype, seed)
        np.testing.assert_array_equal(mhakit.attention(*arrays), checked(*arrays))


@pytest.mark.parametrize("change", ["query", "key", "value"])
@pytest.mark.parametrize("sizes", [FEW, MANY])
def test_a_repetition_reads_each_array_that_is_another(sizes, change):
    arrays = dict(zip(("query", "key", "value"), draw(sizes, np.float32), strict=True))
    for _ in range(3):
        mhakit.attention(**arrays)
    arrays[change] = -arrays[change]
    np.testing.assert_array_equal(mhakit.attention(**arrays), checked(**arrays))


def test_strides_tell_kinds_of_calls_apart():
    arrays = draw(MANY, np.float32)
    views = [
        lambda x: x,
        lambda x: np.asfortranarray(x),
        lambda x: x[..., ::-1],
        lambda x: x[:, :, ::-1],
        lambda x: np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
    ]
    for _ in range(3):
        for view, which in product(views, range(3)):
            given = [view(x) if i == which else x for i, x in enumerate(arrays)]
            np.testing.assert_array_equal(mhakit.attention(*given), checked(*given))


@pytest.mark.parametrize("sizes", [FEW, MANY])
def test_unaligned_arrays_are_read_where_they_lie(sizes):
    arrays = draw(sizes, np.float32)
    expected = checked(*arrays)
    for _ in range(3):
        np.testing.assert_array_equal(mhakit.attention(*arrays), expected)
        np.testing.assert_array_equal(mhakit.attention(*map(unaligned, arrays)), expected)


def test_a_batch_may_be_left_out():
    arrays = [x[0] for x in draw(MANY, np.float32)]
    for _ in range(3):
        np.testing.assert_array_equal(mhakit.attention(*arrays), checked(*arrays))


def test_what_a_kind_of_call_keeps_is_not_freed():
    arrays = draw(MANY, np.float32)
    expected = checked(*arrays)
    for _ in range(3):
        mhakit.attention(*arrays)
    visibility._everywhere.cache_clear()
    others = [np.ones(2, np.int64) for _ in range(1000)]  # where lengths and offsets would lie
    np.testing.assert_array_equal(mhakit.attention(*arrays), expected)
    assert all((other == 1).all() for other in others)


@pytest.mark.parametrize(
    "keywords",
    [
        {"causal": "bottom_right"}, {"mask": np.eye(37, 70, dtype=bool)},
        {"bias": np.linspace(-3, 3, 70)},
        {"key_lengths": 5}, {"scale": 3.0}, {"softcap": 0.1}, {"sinks": np.ones(6)},
        {"score_mod": "alibi"}, {"backend": "reference"},
    ],
)  # fmt: skip
def test_a_keyword_is_heard_after_calls_without_one(keywords):
    arrays = draw(MANY, np.float64)
    for _ in range(3):
        mhakit.attention(*arrays)
    heard = mhakit.attention(*arrays, **keywords)
    np.testing.assert_array_equal(heard, checked(*arrays, **keywords))
    assert (heard != mhakit.attention(*arrays)).any()


def test_layout_window_and_lse_are_heard_after_calls_without_them():
    arrays = draw(Sizes(1, 5, 5, 5, 5, 8, 8), np.float64)
    for _ in range(3):
        mhakit.attention(*arrays)
    output, lse = mhakit.attention(*arrays, return_lse=True)
    np.testing.assert_array_equal(output, checked(*arrays))
    assert lse.shape == (1, 5, 5)
    assert (mhakit.attention(*arrays, window=(1, 1)) != output).any()
    turned = [x.swapaxes(1, 2) for x in arrays]
    for _ in range(3):
        mhakit.attention(*turned)
    laid = mhakit.attention(*turned, layout="BTHD")
    np.testing.assert_array_equal(laid.swapaxes(1, 2), output)


def test_a_call_that_was_refused_is_refused_again():
    query, key, value = draw(MANY, np.float32)
    for _ in range(3):
        with pytest.raises(mhakit.ShapeError, match="key must have B=2 and D=16 as query has"):
            mhakit.attention(query, key[..., :-1], value)
        with pytest.raises(mhakit.DTypeError, match="query must be float64"):
            mhakit.attention(query.astype(int), key, value)
        with pytest.raises(mhakit.DTypeError, match="byte order"):
            mhakit.attention(*(x.astype(x.dtype.newbyteorder()) for x in (query, key, value)))
        mhakit.attention(query, key, value)
        with pytest.raises(mhakit.DTypeError, match="query_offset must be integers"):
            mhakit.attention(query, key, value, query_offset=0.5)
        with pytest.raises(mhakit.ParameterError, match="score_args must be a tuple, got ndarray"):
            mhakit.attention(query, key, value, score_args=np.ones(3))


class Subclass(np.ndarray):
    pass


def test_subclasses_are_checked_every_time():
    query, key, value = draw(MANY, np.float64)
    known = dict(repeating._known)
    for _ in range(3):
        np.testing.assert_array_equal(
            mhakit.attention(query.view(Subclass), key, value), checked(query, key, value)
        )
        with pytest.raises(mhakit.DTypeError, match="query must not be a masked array"):
            mhakit.attention(np.ma.masked_array(query), key, value)
    assert repeating._known == known


def test_nothing_of_a_callers_arrays_is_kept():
    arrays = draw(FEW, np.float32)
    gone = [weakref.ref(array) for array in arrays]
    gone += [weakref.ref(mhakit.attention(*arrays)) for _ in range(3)]
    del arrays
    gc.collect()
    assert not [one for one in gone if one() is not None]


@pytest.mark.parametrize("sizes", [FEW, MANY])
def test_threads_repeat_a_call_at_once(sizes):
    drawn = [draw(sizes, np.float32, seed) for seed in range(8)]
    expected = [checked(*arrays) for arrays in drawn]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for output, wanted in zip(
                pool.map(lambda arrays: mhakit.attention(*arrays), drawn), expected, strict=True
            ):
                np.testing.assert_array_equal(output, wanted)


def test_so_many_kinds_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr(repeating, "MOST", 3)
    monkeypatch.setattr(repeating, "_known", {})
    for T in (1, 2, 1, 3, 4, 5, 6, 1, 1, 1):
        arrays = draw(Sizes(1, 1, 1, T, 3, 4, 4), np.float64)
        np.testing.assert_array_equal(mhakit.attention(*arrays), checked(*arrays))
        assert len(repeating._known) <= 3
    assert any(known is not None for known in repeating._known.values())
