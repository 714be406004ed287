"""What a device refuses or fails at is named: memory, kernels, callers' functions."""

import gc
import math
import weakref
from itertools import product

import numpy as np
import pytest

import mhakit
from material.device_arrays import KEY, QUERY, VALUE, Held
from mhakit.errors import KernelError, OutOfMemory
from mhakit.testing import Sizes, draw


def test_a_device_without_memory_says_how_many_bytes_and_keeps_none(device, monkeypatch):
    from numba import cuda

    kept, copy = [], cuda.to_device

    def copied(array, stream):
        made = copy(array, stream=stream)
        kept.append(weakref.ref(made))
        return made

    class CudaAPIError(Exception):
        """As Numba's driver raises it."""

    def refuse(*shape, **keywords):
        raise CudaAPIError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(cuda, "to_device", copied)
    monkeypatch.setattr(cuda, "device_array", refuse)
    message = r"output of shape \(2, 4, 3, 5\) and dtype float32 must fit in the device's memory, got a request of 480 bytes that was refused; free arrays of the device"
    with pytest.raises(OutOfMemory, match=message):
        mhakit.attention(
            QUERY,
            KEY,
            VALUE,
            sinks=np.ones(4),
            mask=np.ones((3, 9), bool),
            bias=np.ones(9),
            backend="cuda",
        )
    with pytest.raises(OutOfMemory, match="output of shape"):
        mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE))
    gc.collect()
    assert len(kept) > 5
    assert not [one for one in kept if one() is not None], "inputs of a call that failed are kept"

    def broken(*shape, **keywords):
        raise CudaAPIError("[999] unknown")

    monkeypatch.setattr(cuda, "device_array", broken)
    with pytest.raises(CudaAPIError, match="999"):
        mhakit.softmax(QUERY, backend="cuda")


def test_a_kernel_that_fails_is_named(device):
    def out_of_bounds(score, b, h, t, s, table):
        return score + table[s]

    message = r"the kernel of attention must run to its end on the device, got IndexError: .*out of bounds.* may have to be started anew"
    with pytest.raises(KernelError, match=message):
        mhakit.attention(
            QUERY, KEY, VALUE, score_mod=out_of_bounds, score_args=(np.ones(3),), backend="cuda"
        )


def test_a_failure_that_shows_when_results_are_copied_is_named(device, monkeypatch):
    from mhakit.backends.cuda import memory

    def fail(*given):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(memory, "copy_out", fail)
    with pytest.raises(KernelError, match=r"kernel of softmax must run .* illegal memory access"):
        mhakit.softmax(QUERY, backend="cuda")


def test_a_function_that_raises_or_is_not_pythons_is_refused_by_name(device):
    def raises(score, b, h, t, s):
        if s > 3:
            raise ValueError("no")
        return score

    for function in (mhakit.attention, mhakit.attention_weights):
        arrays = (QUERY, KEY, VALUE) if function is mhakit.attention else (QUERY, KEY)
        with pytest.raises(mhakit.CompileError, match=r"raises must raise nothing, got a raise"):
            function(*arrays, score_mod=raises, backend="cuda")
        with pytest.raises(mhakit.CompileError, match=r"score_mod fabs must be a scalar function"):
            function(*arrays, score_mod=math.fabs, backend="cuda")


def returns_whether(score, b, h, t, s):
    return s > t


def returns_complex(score, b, h, t, s):
    return score * 1j


def returns_two(score, b, h, t, s):
    return score, s


def returns_nothing(score, b, h, t, s):
    pass


RETURNED = {
    returns_whether: "got bool", returns_complex: r"got complex\d+", returns_nothing: "got none",
    returns_two: r"got Tuple\(float32, int64\)",
}  # fmt: skip


@pytest.mark.parametrize("score_mod", RETURNED)
def test_a_function_that_returns_no_real_number_is_refused_as_on_the_cpu(score_mod, device):
    message = f"score_mod {score_mod.__name__} must return one real number, {RETURNED[score_mod]};"
    message += " it may use arithmetic"
    for backend, verb in product(("cpu", "cuda"), ("attention", "attention_scores")):
        arrays = (QUERY, KEY, VALUE) if verb == "attention" else (QUERY, KEY)
        with pytest.raises(mhakit.CompileError, match=message):
            getattr(mhakit, verb)(*arrays, score_mod=score_mod, backend=backend)
    with pytest.raises(mhakit.CompileError, match=message):
        mhakit.attention_weights(Held(QUERY), Held(KEY), score_mod=score_mod)


def test_a_function_that_returns_no_real_number_is_refused_before_tiles_are_launched(tiles):
    arrays = draw(Sizes(1, 1, 1, 3, 5, 32, 32), np.float16)
    with pytest.raises(mhakit.CompileError, match="must return one real number, got bool"):
        mhakit.attention(*arrays, score_mod=returns_whether, backend="cuda")
    assert not tiles


def test_a_whole_number_may_be_returned(device):
    scores = mhakit.attention_scores(
        QUERY, KEY, score_mod=lambda score, b, h, t, s: s, backend="cuda"
    )
    assert (scores == np.arange(KEY.shape[2])).all()


def test_a_function_that_does_not_compile_is_named(device, monkeypatch):
    from numba.core.errors import TypingError

    from mhakit.backends.cuda import launch

    def refuse(function, signature):
        raise TypingError("Failed in cuda mode pipeline\nunknown name nowhere")

    monkeypatch.setattr(launch, "_compiled", refuse)
    message = r"score_mod .*<lambda> must be a scalar function .* that compiles, got unknown name nowhere; it may use"
    with pytest.raises(mhakit.CompileError, match=message):
        mhakit.attention(
            QUERY, KEY, VALUE, score_mod=lambda score, b, h, t, s: score, backend="cuda"
        )
    with pytest.raises(TypingError):
        mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
