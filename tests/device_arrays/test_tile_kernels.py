"""What the tile kernels are handed: their launches are done by their NumPy twins."""

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.device_arrays import Held, at
from mhakit.errors import KernelError
from mhakit.testing import Sizes, assert_within, budget, draw


def sloped(score, b, h, t, s, slopes):
    return score + slopes[h] * type(score)(t - s)


@pytest.mark.parametrize(("where", "T"), [("host", 9), ("device", 9), ("host", 5), ("device", 5)])
def test_the_tile_kernels_get_what_they_read_and_their_results_come_back(where, T, tiles):
    dtype = np.dtype(ml_dtypes.bfloat16)
    query, key, value = draw(Sizes(2, 4, 2, T, 270, 32, 32), dtype)
    real = np.float64 if where == "host" else np.float32
    given = {
        "mask": np.random.default_rng(0).random((4, 1, 270)) < 0.7,
        "bias": np.linspace(-1, 1, 270, dtype=real), "sinks": np.linspace(0, 1, 4, dtype=real),
    }  # fmt: skip
    slopes = np.linspace(0, 0.1, 4, dtype=np.float32)
    keywords = {"key_lengths": [270, 31], "causal": "bottom_right", "score_mod": sloped}
    expected, expected_lse = budget(
        "attention", query, key, value, **given, **keywords, score_args=(slopes,)
    )
    if where == "host":
        out = np.zeros(query.shape, dtype)
        output, lse = mhakit.attention(
            query, key, value, **given, **keywords, score_args=(slopes,), return_lse=True,
            out=out, backend="cuda",
        )  # fmt: skip
        assert output is out
    else:
        there = {name: Held(array) for name, array in given.items()}
        output, lse = mhakit.attention(
            Held(query, stream=77), Held(key, stream=77), Held(value, stream=77), **there,
            **keywords, score_args=(slopes,), return_lse=True,
        )  # fmt: skip
        output, lse = at(output).view(dtype), at(lse)
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")
    ((problem, out, lse, stream),) = tiles
    assert stream == (0 if where == "host" else 77)
    assert {problem.query_offset.dtype, problem.key_lengths.dtype} == {np.dtype(np.int64)}
    assert {problem.bias.dtype, problem.sinks.dtype, lse.dtype} == {np.dtype(np.float32)}
    assert {problem.query.dtype, out.dtype} == {dtype}
    assert problem.bias.strides == (0, 0, 0, 4), "what was broadcast is not written out"


def test_lse_is_no_array_for_the_tile_kernels_where_nobody_wants_it(tiles):
    arrays = draw(Sizes(1, 1, 1, 3, 5, 32, 32), np.float16)
    mhakit.attention(*arrays, backend="cuda")
    assert tiles[0][2] is None


@pytest.mark.parametrize(("verb", "T"), [("attend", 17), ("decode", 16)])
def test_a_tile_kernel_that_fails_is_named(verb, T, tiles, monkeypatch):
    from mhakit.backends.cuda import tiles as package

    def fail(*given, stream):
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED")

    monkeypatch.setattr(package, verb, fail)
    arrays = draw(Sizes(1, 1, 1, T, 5, 32, 32), np.float16)
    message = "kernel of attention must run to its end on the device, got RuntimeError: CUDA_ERROR"
    with pytest.raises(KernelError, match=message):
        mhakit.attention(*arrays, backend="cuda")
