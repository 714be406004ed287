"""On a CUDA device itself: its own arrays in and out, poisoned outputs, runs that repeat.

The tests of every backend run there for ``cuda``, too, at full size: they have it as a parameter.
"""

import numpy as np
import pytest

import mhakit
from mhakit import backends
from mhakit.testing import GRID, Sizes, assert_within, budget, draw

WHY_NOT = backends.availability()["cuda"]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
SHAPE = "several tiles of several blocks"


def to_numba(array):
    from numba import cuda

    return cuda.to_device(array)


def to_torch(array):
    torch = pytest.importorskip("torch")
    bits = array.dtype.name == "bfloat16"
    tensor = torch.from_numpy(array.view(np.int16) if bits else array).cuda()
    return tensor.view(torch.bfloat16) if bits else tensor


def to_cupy(array):
    if array.dtype.name == "bfloat16":
        pytest.skip("CuPy has no bfloat16")
    return pytest.importorskip("cupy").asarray(array)


def to_host(result, dtype):
    if hasattr(result, "copy_to_host"):
        return result.copy_to_host().view(dtype)
    if hasattr(result, "get"):
        return result.get()
    if dtype.name == "bfloat16":
        torch = pytest.importorskip("torch")
        return result.view(torch.int16).cpu().numpy().view(dtype)
    return result.cpu().numpy()


@pytest.mark.parametrize("to_device", [to_numba, to_torch, to_cupy])
def test_arrays_of_each_library_stay_in_that_library(to_device, dtype):
    arrays = draw(GRID[SHAPE], dtype)
    there = [to_device(array) for array in arrays]
    output, lse = mhakit.attention(*there, causal="bottom_right", return_lse=True)
    assert type(output) is type(there[0])
    expected, expected_lse = budget("attention", *arrays, causal="bottom_right")
    assert_within(to_host(output, dtype), expected, "output")
    real = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    assert_within(to_host(lse, real), expected_lse, "lse")


def test_a_poisoned_output_is_written_throughout_and_a_run_repeats_itself(dtype):
    arrays = draw(GRID[SHAPE], dtype)
    there = [to_numba(array) for array in arrays]
    runs = []
    for _ in range(3):
        out = to_numba(np.full((*arrays[0].shape[:3], arrays[2].shape[3]), np.nan, dtype))
        mhakit.attention(*there, causal="bottom_right", out=out)
        runs.append(out.copy_to_host().view(dtype))
    assert_within(runs[0], budget("attention", *arrays, causal="bottom_right")[0])
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


@pytest.mark.parametrize(
    "name",
    [
        "bfloat16-D64-128x64-4w", "float16-D128-64x64-4w",
        "float16-D32-64x64-4w-mask",
        "bfloat16-D128-64x64-4w-softcap-bias-mask-score_mod",
        "float32-3xtf32-D64-64x32-4w", "float32-fma-D64-128x32-4w",
        "float32-3xtf32-D128-64x32-4w-softcap-bias-mask-score_mod",
        "decoding-bfloat16-D128-16x64-4w",
        "decoding-float16-D64-16x64-4w-softcap-bias-mask-score_mod",
        "decoding-float32-3xtf32-D128-16x32-2w", "decoding-float32-fma-D64-16x32-2w-mask",
        "decoding-float32-3xtf32-D256-16x32-4w", "decoding-float32-fma-D64E256-16x32-4w-bias",
    ],
)  # fmt: skip
def test_a_tile_kernel_keeps_the_budget_and_repeats_itself(name):
    from numba import cuda

    from mhakit.backends.cuda.check.device import verify
    from mhakit.backends.cuda.check.variants import VARIANTS

    if cuda.get_current_device().compute_capability < (8, 0):
        pytest.skip("tile kernels need compute capability 8.0")
    (variant,) = [variant for variant in VARIANTS if variant.name == name]
    verify(variant, np.random.default_rng())


@pytest.mark.parametrize("asked", ["", "fma"])
def test_what_no_tf32_holds_is_treated_as_float32_is(asked, monkeypatch):
    monkeypatch.setenv("MHAKIT_CUDA_FLOAT32", asked)
    largest = np.finfo(np.float32).max
    for which, special in (
        (2, largest), (2, -largest), (2, np.inf), (2, np.nan), (1, np.inf), (1, np.nan),
        (0, np.inf),
    ):  # fmt: skip
        arrays = draw(Sizes(1, 1, 1, 40, 40, 64, 64), np.float32, seed=3)
        arrays[which][0, 0, 3, slice(None) if which == 2 else 5] = special
        there = [to_numba(array) for array in arrays]
        output, lse = mhakit.attention(*there, causal="top_left", return_lse=True)
        expected, expected_lse = budget("attention", *arrays, causal="top_left")
        assert_within(to_host(output, np.dtype(np.float32)), expected, f"output of {special}")
        assert_within(to_host(lse, np.dtype(np.float32)), expected_lse, f"lse of {special}")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_long_cache_is_decoded_alike_in_every_run_and_its_end_never_read(dtype):
    query, key, value = draw(Sizes(2, 8, 2, 3, 5000, 64, 64), dtype)
    key[:, :, 4321:] = value[:, :, 4321:] = np.nan
    keywords = {"key_lengths": [4321, 77], "causal": "bottom_right"}
    expected, expected_lse = budget("attention", query, key, value, **keywords)
    there = [to_numba(array) for array in (query, key, value)]
    runs = [mhakit.attention(*there, **keywords, return_lse=True) for _ in range(3)]
    output, lse = (
        to_host(result, np.dtype(kind))
        for result, kind in zip(runs[0], (dtype, np.float32), strict=True)
    )
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")
    for again in runs[1:]:
        np.testing.assert_array_equal(to_host(again[0], output.dtype), output)
        np.testing.assert_array_equal(to_host(again[1], lse.dtype), lse)


def test_more_than_the_device_holds_is_refused_with_the_bytes_asked_for():
    query = to_numba(np.zeros((1, 1, 2**21, 1), np.float32))
    with pytest.raises(mhakit.OutOfMemory, match=r"got a request of 17,592,186,044,416 bytes"):
        mhakit.attention_scores(query, query)
