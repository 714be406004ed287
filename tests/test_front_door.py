"""What importing mhakit brings, and what it does not."""

import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest

import mhakit
from mhakit.testing import GRID, Sizes, draw


def test_importing_mhakit_imports_no_numba_and_nothing_optional():
    code = (
        "import sys, mhakit; optional = ('numba', 'llvmlite', 'click', 'rich', 'safetensors',"
        "'tokenizers', 'scipy', 'matplotlib', 'ml_dtypes'); print([m for m in optional if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented():
    for name in mhakit.__all__:
        assert getattr(mhakit, name) is not None
        if name != "__version__":
            assert getattr(mhakit, name).__doc__, name
    assert mhakit.__version__ == importlib.metadata.version("mhakit")


def test_anything_with_array_or_dlpack_is_taken_without_a_copy():
    query, key, value = draw(GRID["no two sizes equal"], np.float32)
    expected = mhakit.attention(query, key, value)

    class Array:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            assert not copy
            return self.array

    class Capsule:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **keywords):
            return self.array.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    for kind in (Array, Capsule):
        result = mhakit.attention(kind(query), kind(key), kind(value))
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)


def test_lengths_and_offsets_may_be_lists_ints_or_any_integer_array():
    query, key, value = draw(GRID["no two sizes equal"], np.float32)
    expected = mhakit.attention(
        query, key, value, key_lengths=[3, 3], query_offset=[1, 1], causal=True
    )
    for three, one in [(3, 1), (np.uint8(3), np.int16(1)), (np.full(2, 3, np.uint64), (1, 1))]:
        result = mhakit.attention(
            query, key, value, key_lengths=three, query_offset=one, causal=True
        )
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("keywords", "equal_to"),
    [
        ({"causal": "bottom_right"}, {"causal": True, "query_offset": 90}),
        ({"causal": "top_left"}, {"causal": True, "query_offset": 0}),
        ({"causal": "bottom_right", "key_lengths": [70, 100]}, {"causal": True, "query_offset": [60, 90], "key_lengths": [70, 100]}),
        ({"causal": True, "query_offset": 4, "window": (3, 9)}, {"query_offset": 4, "window": (3, 0)}),
        ({"window": (None, None)}, {}),
        ({"causal": False}, {}),
        ({"query_offset": 2**60, "window": (2**60, None)}, {"mask": np.arange(100) >= np.arange(10)[:, None]}),
    ],
    ids=lambda keywords: " ".join(keywords) or "none",
)  # fmt: skip
def test_two_ways_of_saying_the_same_are_the_same(keywords, equal_to):
    arrays = draw(Sizes(2, 2, 1, 10, 100, 8, 8), np.float32)
    np.testing.assert_array_equal(
        mhakit.attention(*arrays, **keywords), mhakit.attention(*arrays, **equal_to)
    )


def test_causal_true_with_as_many_targets_as_sources_means_offset_0_whatever_the_lengths():
    arrays = draw(Sizes(2, 2, 1, 10, 10, 8, 8), np.float32)
    np.testing.assert_array_equal(
        mhakit.attention(*arrays, causal=True, key_lengths=[4, 9]),
        mhakit.attention(*arrays, causal="top_left", key_lengths=[4, 9]),
    )


def test_explain_runs_nothing_and_counts_tiles():
    query, key, value = draw(Sizes(2, 4, 2, 256, 256, 64, 64), np.float32)
    query[...] = np.nan
    dense = mhakit.explain(query, key, value)
    causal = mhakit.explain(query, key, value, causal=True)
    window = mhakit.explain(query, key, value, window=(10, 10))
    masked = mhakit.explain(query, key, value, mask=np.ones((256, 256), bool))
    assert dense.tiles_border == dense.tiles_skipped == 0
    assert masked.tiles_full == 0
    assert masked.tiles_border == dense.tiles_full
    for plan in (causal, window):
        assert plan.tiles_full + plan.tiles_border + plan.tiles_skipped == dense.tiles_full
        assert plan.tiles_skipped > 0
        assert plan.flops < dense.flops
    assert dense.flops == 4 * 2 * 4 * 256 * 256 * 64
    assert dense.bytes_moved == 4 * (2 * 2 * 4 + 2 * 2 * 2) * 256 * 64
    assert dense.to_dict()["kernel"] in str(dense)
    with pytest.raises(AttributeError):
        dense.kernel = "another"


def test_explain_counts_the_blocks_that_each_target_s_tile_takes():
    # no width of a register makes its tiles all equally wide
    T, S, D, E = 304, 320, 8, 16
    query, key, value = draw(Sizes(1, 1, 1, T, S, D, E), np.float32)

    def mark(score, b, h, t, s, taken):
        taken[t, s // 64] = 1
        return score

    taken = np.zeros((T, S // 64), np.int64)
    mhakit.attention(
        query, key, value, causal="top_left", score_mod=mark, score_args=(taken,), backend="cpu"
    )
    plan = mhakit.explain(query, key, value, causal="top_left", backend="cpu")
    assert taken.sum() < taken.size
    assert plan.flops == 2 * (D + E) * 64 * taken.sum()


@pytest.mark.parametrize("B", [0, 1])
def test_explain_takes_empty_sizes(B, backend):
    arrays = draw(Sizes(B, 2, 1, 0, 0, 8, 8), np.float32)
    plan = mhakit.explain(*arrays, backend=backend)
    assert plan.flops == 0
