"""Line 3 of the contract: a row has the same bits whatever stands around it."""

import numpy as np
import pytest

import mhakit
from mhakit.api.attending import attention_and_weights
from mhakit.testing import Sizes, draw


@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"window": (101, 3)}], ids=str)
@pytest.mark.parametrize(
    "spans",
    [
        [(0, 150), (0, 5), (3, 20), (64, 128), (1, 65), (5, 150), (145, 150)],
        [(0, 4), (0, 1), (1, 4), (2, 3), (3, 4)],  # few enough to be decoded
    ],
    ids=["tiles", "decoding"],
)
def test_3_a_row_has_the_same_bits_whatever_stands_around_it(rule, spans, dtype, monkeypatch):
    """Cut targets, batches, groups and heads away; the order of decoding is one of its own."""
    from mhakit.backends.cpu import launch

    S = 700
    query, key, value = draw(Sizes(2, 4, 2, 150, S, 20, 12), dtype)
    lengths = np.array([S, 600])

    def rows(start, stop, b=slice(None), h=slice(None), g=slice(None)):
        return mhakit.attention(
            query[b, h, start:stop], key[b, g], value[b, g],
            query_offset=start + 520, key_lengths=lengths[b], **rule,
        )  # fmt: skip

    (first, last), *parts = spans
    whole = rows(first, last)
    for start, stop in parts:
        np.testing.assert_array_equal(rows(start, stop), whole[:, :, start:stop])
    np.testing.assert_array_equal(rows(first, last, b=slice(1, 2)), whole[1:])
    one_group = rows(first, last, h=slice(2, 4), g=slice(1, 2))
    np.testing.assert_array_equal(one_group, whole[:, 2:4])
    one_head = rows(first, last, h=slice(3, 4), g=slice(1, 2))
    np.testing.assert_array_equal(one_head, whole[:, 3:4])
    for limit in (0, float("inf")):
        monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
        np.testing.assert_array_equal(rows(first, last), whole)


def test_3_a_row_with_its_weights_has_the_same_bits_whatever_stands_around_it(dtype):
    query, key, value = draw(Sizes(2, 4, 2, 150, 300, 20, 12), dtype)
    rules = [{}, {"causal": True}, {"window": (101, 3)}]

    def rows(start, stop, rule, b=slice(None), h=slice(None), g=slice(None)):
        return attention_and_weights(
            query[b, h, start:stop], key[b, g], value[b, g], query_offset=start + 120, **rule
        )

    for rule in rules:
        whole = rows(0, 150, rule)
        for start, stop in [(0, 1), (3, 20), (64, 128), (5, 150)]:
            for part, all_rows in zip(rows(start, stop, rule), whole, strict=True):
                np.testing.assert_array_equal(part, all_rows[:, :, start:stop])
        one = rows(0, 150, rule, slice(1, 2), slice(3, 4), slice(1, 2))
        for part, all_rows in zip(one, whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[1:, 3:])


@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"window": (9, 1)}], ids=str)
def test_3_holds_for_every_backend_of_kernels(rule, dtype, kernels):
    """Short sequences, cut within a tile and at its end; the rest of the contract is above."""
    query, key, value = draw(Sizes(2, 2, 1, 7, 19, 3, 5), dtype)

    def rows(start, stop, b=slice(None), h=slice(None)):
        given = (query[b, h, start:stop], key[b], value[b])
        keywords = {"query_offset": start + 12, "backend": kernels} | rule
        return mhakit.attention(*given, **keywords, return_lse=True)

    whole = rows(0, 7)
    assert rule or not np.array_equal(whole[1][:, :, 0], whole[1][:, :, 1])
    for start, stop in [(0, 1), (1, 4), (5, 7)] if kernels == "cuda" else [(0, 6), (1, 7)]:
        for part, all_rows in zip(rows(start, stop), whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[:, :, start:stop])
    for part, all_rows in zip(rows(0, 7, slice(1, 2), slice(1, 2)), whole, strict=True):
        np.testing.assert_array_equal(part, all_rows[1:, 1:])


@pytest.mark.parametrize("T", [130, 2])
def test_3_every_number_of_threads_gives_the_same_bits(T, form):
    import numba

    arrays = draw(Sizes(2, 4, 2, T, 1300, 20, 12), np.float32)
    results = []
    for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        numba.set_num_threads(threads)
        results += [mhakit.attention(*arrays, causal="bottom_right") for _ in range(3)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
