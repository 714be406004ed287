"""What an array on a device tells of itself, and where it may not lie; no kernel runs."""

import sys

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.arrays import unaligned
from material.device_arrays import KEY, QUERY, VALUE, Held, Tensor
from mhakit.device import is_on_device, read
from mhakit.errors import BackendUnavailable, DTypeError, ParameterError


def test_an_array_on_a_device_is_known_and_read_without_its_numbers():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1]
    told = read(Held(array), "query")
    assert is_on_device(Held(array))
    assert not any(map(is_on_device, (array, [1.0], np.float32(1), "query")))
    assert (told.shape, told.strides, told.dtype) == (array.shape, array.strides, array.dtype)
    assert told.address == array.ctypes.data
    swapped, wide = told.swapaxes(0, 2), told[None, None]
    assert (swapped.shape, swapped.strides) == (array.T.shape, array.T.strides)
    assert (wide.shape, wide.size, wide.ndim, len(wide)) == ((1, 1, 2, 3, 4), 24, 5, 1)
    spread = told.broadcast_to((5, 2, 3, 4))
    assert spread.strides == np.broadcast_to(array, (5, 2, 3, 4)).strides
    with pytest.raises(ValueError, match="broadcast"):
        told.broadcast_to((5, 3, 4))
    with pytest.raises(ValueError, match="broadcast"):
        told.broadcast_to((3, 4))
    with pytest.raises(IndexError, match="takes None alone, got 0"):
        told[0]
    with pytest.raises(DTypeError, match="must be in host memory to be read by NumPy"):
        np.asarray(told)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "bool", "int32"])
def test_dlpack_is_read_in_place(dtype):
    array = np.arange(12).reshape(3, 4).astype(getattr(ml_dtypes, dtype, dtype))
    told = read(Tensor(array), "query")
    assert told.dtype == array.dtype, "not the float16 that the other protocol says"
    assert (told.shape, told.strides, told.device) == ((3, 4), array.strides, 0)
    assert told.address == array.ctypes.data
    across = read(Tensor(array.T), "query")
    assert across.strides == array.T.strides


def test_an_interface_without_strides_lies_in_order():
    told = read(Held(KEY, strides=None), "key")
    assert told.strides == KEY.strides
    narrow = Held(KEY.astype(ml_dtypes.bfloat16))
    assert read(narrow, "key").dtype == ml_dtypes.bfloat16, "its dtype says more than <V2"


class Refusing(Tensor):
    def __dlpack__(self, stream):
        raise BufferError("requires a gradient")


def added(score, b, h, t, s, table):
    return score + table[s]


HOST_OR_DEVICE = {
    "key on the host": (lambda: mhakit.attention(Held(QUERY), KEY, Held(VALUE)), ParameterError, "key must lie where query lies, in the memory of a CUDA device, got one in host memory; copy one of them"),
    "query on the host": (lambda: mhakit.attention(QUERY, Held(KEY), VALUE), ParameterError, "key must lie where query lies, in host memory, got one in the memory of a CUDA device"),
    "mask on the device": (lambda: mhakit.attention(QUERY, KEY, VALUE, mask=Held(np.ones((3, 9), bool))), ParameterError, "mask must lie where query lies, in host memory"),
    "bias on the host": (lambda: mhakit.attention_scores(Held(QUERY), Held(KEY), bias=np.ones((3, 9))), ParameterError, "bias must lie where query lies, in the memory of a CUDA device"),
    "sinks on the host": (lambda: mhakit.attention_weights(Held(QUERY), Held(KEY), sinks=np.ones(4)), ParameterError, "sinks must lie where query lies"),
    "sinks of softmax": (lambda: mhakit.softmax(Held(QUERY), sinks=np.ones(4)), ParameterError, "sinks must lie where scores lies"),
    "value alone": (lambda: mhakit.weighted_sum(np.ones((2, 4, 3, 9), np.float32), Held(VALUE)), ParameterError, "value must lie where weights lies, in host memory"),
    "an lse": (lambda: mhakit.merge_attention((Held(QUERY), np.ones((2, 4, 3), np.float32))), ParameterError, "lse 0 must lie where output 0 lies"),
    "hidden states": (lambda: mhakit.combine(Held(QUERY), hidden_states=np.ones((2, 3, 12))), ParameterError, "hidden_states must lie where heads lies"),
    "a plan's weight": (lambda: mhakit.combine(QUERY, "average", {"weight": Held(np.ones((3, 3))), "bias": np.ones(3)}), ParameterError, "the weight that combination 'average' plans must lie where heads lie, in host memory"),
    "backend of the host": (lambda: mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), backend="cpu"), BackendUnavailable, r"backend 'cpu' must be given arrays in host memory, got arrays on a CUDA device; use backend='cuda' \(or None\)"),
    "gradients": (lambda: mhakit.combine_vjp(QUERY, "average", {"weight": np.ones((3, 3)), "bias": np.ones(3)}, backend="cuda"), BackendUnavailable, "backend 'cuda' must not be asked for gradients, .* use backend='cpu'"),
    "unaligned": (lambda: mhakit.attention(Held(QUERY), Held(unaligned(KEY)), Held(VALUE)), ParameterError, r"key must be aligned to its numbers of 4 bytes, got address 0x[0-9a-f]+ and strides \(216, 108, 12, 4\); pass a copy"),
    "freed": (lambda: mhakit.attention(Held(QUERY), Held(KEY, data=(0, False)), Held(VALUE)), ParameterError, r"key must lie in memory, got address 0 and shape \(2, 2, 9, 3\); what it held may have been freed"),
    "lengths": (lambda: mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), key_lengths=Held(np.array([3, 9]))), ParameterError, "key_lengths must lie in host memory, got one in the memory of a CUDA device; copy it there"),
    "offsets": (lambda: mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), causal=True, query_offset=Held(np.array([3, 9]))), ParameterError, "query_offset must lie in host memory"),
    "score_args": (lambda: mhakit.attention(QUERY, KEY, VALUE, score_mod=added, score_args=(Held(np.ones(9)),)), ParameterError, "an array of score_args must lie where query lies, in host memory, got one in the memory of a CUDA device"),
    "score_args within": (lambda: mhakit.attention(QUERY, KEY, VALUE, score_mod=added, score_args=((Held(np.ones(9)),),)), ParameterError, "an array of score_args must lie where query lies"),
    "a masked array": (lambda: mhakit.attention(Held(QUERY, mask=np.ones(3)), Held(KEY), Held(VALUE)), DTypeError, "query must not be a masked array, whose mask would be lost"),
    "no shape": (lambda: mhakit.attention(Held(QUERY, shape=None), Held(KEY), Held(VALUE)), DTypeError, r"query must tell shape, typestr and data by __cuda_array_interface__, got Held \(TypeError: .* pass an array of torch, CuPy or Numba"),
    "no address": (lambda: mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE, data=())), DTypeError, r"value must tell shape, typestr and data by __cuda_array_interface__, got Held \(ValueError"),
    "integers": (lambda: mhakit.attention(Held(QUERY.astype(int)), Held(KEY), Held(VALUE)), DTypeError, "query must be float64, float32, float16 or bfloat16, got int64"),
    "complex by dlpack": (lambda: mhakit.attention(Tensor(QUERY.astype(complex)), Held(KEY), Held(VALUE)), DTypeError, "query must be float64, .* got DLPack's dtype 5 of 128 bits"),
    "dlpack that refuses": (lambda: mhakit.attention(Refusing(QUERY), Held(KEY), Held(VALUE)), DTypeError, r"query must be an array that DLPack can hand over, got Refusing \(requires a gradient\); pass a detached copy"),
    "the layer": (lambda: mhakit.MultiHeadAttention(8, 2)(Held(np.ones((3, 8), np.float32))), DTypeError, "must be an array in host memory, got Held on a CUDA device, where this is not computed; copy it to the host"),
    "mixing": (lambda: mhakit.mixed_attention(Held(QUERY), Held(KEY), Held(VALUE), "talking_heads"), DTypeError, "query must be an array in host memory, got Held on a CUDA device"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOST_OR_DEVICE)
def test_arrays_that_lie_in_the_wrong_place_are_named(name):
    call, error, message = HOST_OR_DEVICE[name]
    with pytest.raises(error, match=message):
        call()


def test_an_array_without_ml_dtypes_cannot_be_bfloat16(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(mhakit.MissingExtra, match=r"bfloat16 needs the ml_dtypes package; pip"):
        read(Tensor(KEY.astype(ml_dtypes.bfloat16)), "key")
