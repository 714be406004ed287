"""Arrays in a CUDA device's memory: taken where they lie, handed back there, or refused by name.

A stand-in for such an array points to the host's memory, which is what Numba's simulator computes
in; what needs no kernel is tried without it.
"""

import gc
import math
import os
import subprocess
import sys
import weakref

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit import backends
from mhakit.device import dlpack, is_on_device, read
from mhakit.errors import (
    BackendUnavailable,
    DTypeError,
    KernelError,
    OutOfMemory,
    ParameterError,
    ShapeError,
)
from mhakit.testing import Sizes, assert_within, budget, draw

SIZES = Sizes(2, 4, 2, 3, 9, 3, 5)


class Held:
    """An array on a device that tells of itself by ``__cuda_array_interface__``."""

    def __init__(self, array, stream=None, **told):
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.stream, self.told = stream, told

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.array.shape,
            "strides": self.array.strides,
            "typestr": self.array.dtype.str,
            "data": (self.array.ctypes.data, False),
            "stream": self.stream,
            "version": 3,
            **self.told,
        }


class Tensor(Held):
    """An array that speaks DLPack, too, and cannot say bfloat16 in the other protocol."""

    ordinal = 0

    @property
    def __cuda_array_interface__(self):
        return {**super().__cuda_array_interface__, "typestr": "<f2"}

    def __dlpack_device__(self):
        return 2, self.ordinal

    def __dlpack__(self, stream):
        self.asked = stream
        half = self.array.dtype.name == "bfloat16"
        capsule = self.array.view(np.uint16 if half else self.array.dtype).__dlpack__()
        if half:
            place = dlpack._pointer(capsule, b"dltensor")
            dlpack._Tensor.from_address(place).dtype.code = dlpack.BFLOAT
        return capsule


class Elsewhere(Tensor):
    ordinal = 1


ON_DEVICE = {"interface": Held, "dlpack": Tensor}
QUERY, KEY, VALUE = draw(SIZES, np.float32)


# what needs no kernel


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


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


class Refusing(Tensor):
    def __dlpack__(self, stream):
        raise BufferError("requires a gradient")


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
    "a masked array": (lambda: mhakit.attention(Held(QUERY, mask=np.ones(3)), Held(KEY), Held(VALUE)), DTypeError, "query must not be a masked array, whose mask would be lost"),
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


# whether there is a device


def test_a_machine_without_numba_cuda_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    message = r"backend 'cuda' must have numba-cuda, which is not installed; pip install 'mhakit\[cuda\]' \(or 'mhakit\[cuda12\]' .* or use backend='cpu'"
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE))


def test_a_numba_cuda_that_cannot_be_imported_is_named(monkeypatch):
    def broken(name):
        raise ImportError("no cuda-bindings")

    monkeypatch.setattr(backends, "_load", broken)
    with pytest.raises(BackendUnavailable, match=r"cannot be imported \(no cuda-bindings\)"):
        mhakit.softmax(QUERY, backend="cuda")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("libcuda.so is missing\nmore"), r"no CUDA driver that works \(libcuda.so is missing\)"),
        (None, "a CUDA driver and no CUDA device"),
    ],
)  # fmt: skip
def test_a_machine_without_a_driver_or_a_device_is_told_which(error, told, monkeypatch):
    from mhakit.backends.cuda import presence

    monkeypatch.setattr(presence.cuda, "is_available", lambda: False)
    monkeypatch.setattr(presence.cuda, "cuda_error", lambda: error)
    message = rf"backend 'cuda' must have a CUDA device, got {told}; run `nvidia-smi` .* or use backend='cpu'"
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
    assert told.split()[0] in backends.availability()["cuda"]


def fresh(code):
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_numba_cuda_is_imported_by_nobody_who_does_not_ask():
    asked = "import sys, numpy as np, mhakit; mhakit.softmax(np.ones(3)); "
    assert fresh(asked + "print('numba.cuda.np' in sys.modules)") == "False"


def test_a_numpy_without_row_stack_gets_none():
    code = (
        "import warnings; warnings.simplefilter('ignore'); import numpy as np; "
        "np.__dict__.pop('row_stack', None); import mhakit.backends.cuda; "
        "print('row_stack' in vars(np))"
    )
    assert fresh(code) == "False"


# what kernels make of them, in the simulator


@pytest.fixture
def device(simulator, monkeypatch):
    """The simulator, taught to borrow memory: what it calls the device is the host."""
    from numba import cuda
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    from mhakit.backends.cuda import memory

    def borrow(interface, owner, sync):
        assert not sync, "a call waits for nobody's stream"
        memory_of = type("Memory", (), {"__array_interface__": {**interface, "version": 3}})
        return FakeCUDAArray(np.asarray(memory_of()))

    def lent(array):
        return Held(array._ary, stream=array.stream or None).__cuda_array_interface__

    monkeypatch.setattr(cuda, "from_cuda_array_interface", borrow, raising=False)
    monkeypatch.setattr(FakeCUDAArray, "__cuda_array_interface__", property(lent), raising=False)
    monkeypatch.setattr(memory, "device_of", lambda address: 0)
    monkeypatch.setattr(cuda, "external_stream", lambda handle: handle)
    return simulator


def at(result):
    """Return the numbers of a result on the device."""
    assert is_on_device(result), "a result of device arrays stays on the device"
    return result.copy_to_host()


@pytest.mark.parametrize("kind", ON_DEVICE)
def test_device_arrays_in_device_arrays_out_the_same_numbers(kind, dtype, device):
    hold = ON_DEVICE[kind]
    query, key, value = draw(SIZES, dtype)
    mask = np.random.default_rng(0).random((4, 1, 9)) < 0.7
    keywords = {"causal": "bottom_right", "softcap": 2.0, "key_lengths": [9, 5]}
    held = {"mask": mask, "bias": np.linspace(-1, 1, 9, dtype=np.float32), "sinks": np.ones(4)}
    there = {name: hold(array) for name, array in held.items()}
    output, lse = mhakit.attention(
        hold(query), hold(key), hold(value), **keywords, **there, return_lse=True
    )
    expected = mhakit.attention(
        query, key, value, **keywords, **held, return_lse=True, backend="cuda"
    )
    np.testing.assert_array_equal(at(output).view(dtype), expected[0])
    np.testing.assert_array_equal(at(lse), expected[1])


def test_every_verb_keeps_arrays_on_the_device(device):
    query, key, value = map(Held, (QUERY, KEY, VALUE))
    given = {"backend": "cuda"}
    scores = mhakit.attention_scores(query, key)
    np.testing.assert_array_equal(at(scores), mhakit.attention_scores(QUERY, KEY, **given))
    weights = mhakit.attention_weights(query, key, heads=[3, 0], queries=[1])
    expected = mhakit.attention_weights(QUERY, KEY, heads=[3, 0], queries=[1], **given)
    np.testing.assert_array_equal(at(weights), expected)
    weights = mhakit.softmax(scores)
    summed = mhakit.weighted_sum(weights, value)
    np.testing.assert_allclose(
        at(summed), mhakit.attention(QUERY, KEY, VALUE), rtol=1e-5, atol=1e-6
    )
    part = mhakit.attention(query, key, value, return_lse=True)
    merged, _ = mhakit.merge_attention(part)
    np.testing.assert_array_equal(at(merged), at(part[0]))
    plan = mhakit.explain(query, key, value)
    assert (plan.backend, plan.kernel) == ("cuda", "cuda.attention, plain blocks")
    assert plan.why.startswith("Numba's simulator has no tensor cores; plain blocks take")


def test_strides_of_a_device_are_read_as_they_are(device):
    across = [np.asfortranarray(array) for array in (QUERY, KEY, VALUE)]
    backwards = [np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1] for array in across]
    expected = mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
    for arrays in (across, backwards):
        np.testing.assert_array_equal(at(mhakit.attention(*map(Held, arrays))), expected)
    swapped = [Held(array.swapaxes(1, 2)) for array in (QUERY, KEY, VALUE)]
    result = at(mhakit.attention(*swapped, layout="BTHD"))
    np.testing.assert_array_equal(result.swapaxes(1, 2), expected)
    alone = mhakit.attention(*(Held(array[0]) for array in (QUERY, KEY, VALUE)), return_lse=True)
    np.testing.assert_array_equal(at(alone[0]), expected[0])
    assert at(alone[1]).shape == (4, 3)


def test_out_is_written_where_it_lies(device):
    out = np.full((2, 4, 3, 5), np.nan, np.float32)
    held = Held(out)
    assert mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), out=held) is held
    np.testing.assert_array_equal(out, mhakit.attention(QUERY, KEY, VALUE, backend="cuda"))


def sloped(score, b, h, t, s, slopes):
    return score + slopes[h] * type(score)(t - s)


@pytest.fixture
def tiles(device, monkeypatch):
    """The tile kernels' launch done by their NumPy twin, on what lies at the addresses it gets."""
    from mhakit.backends.cuda import presence
    from mhakit.backends.cuda import tiles as package
    from mhakit.backends.cuda.check.twins import run_twin

    launches = []

    def numbers(view):
        told = {"data": (view.address, False), "typestr": f"|V{view.dtype.itemsize}", "version": 3}
        told |= {"shape": view.shape, "strides": view.strides}
        memory_of = type("Memory", (), {"__array_interface__": told})
        return np.asarray(memory_of()).view(view.dtype)

    def attend(problem, out, lse, *, stream):
        launches.append((problem, out, lse, stream))
        names = ("query", "key", "value", "mask", "bias", "sinks", "query_offset", "key_lengths")
        views = {name: getattr(problem, name) for name in names}
        there = {name: None if view is None else numbers(view) for name, view in views.items()}
        args = tuple(np.asarray(getattr(array, "_ary", array)) for array in problem.score_args)
        output, sums = run_twin(problem._replace(**there, score_args=args))
        numbers(out)[...] = output
        if lse is not None:
            numbers(lse)[...] = sums

    monkeypatch.setattr(presence, "capability_of", lambda array: (9, 0))
    monkeypatch.setattr(package, "attend", attend)
    return launches


@pytest.mark.parametrize("where", ["host", "device"])
def test_the_tile_kernels_get_what_they_read_and_their_results_come_back(where, tiles):
    dtype = np.dtype(ml_dtypes.bfloat16)
    query, key, value = draw(Sizes(2, 4, 2, 5, 70, 32, 32), dtype)
    real = np.float64 if where == "host" else np.float32
    given = {
        "mask": np.random.default_rng(0).random((4, 1, 70)) < 0.7,
        "bias": np.linspace(-1, 1, 70, dtype=real), "sinks": np.linspace(0, 1, 4, dtype=real),
    }  # fmt: skip
    slopes = np.linspace(0, 0.1, 4, dtype=np.float32)
    keywords = {"key_lengths": [70, 31], "causal": "bottom_right", "score_mod": sloped}
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


def test_a_tile_kernel_that_fails_is_named(tiles, monkeypatch):
    from mhakit.backends.cuda import tiles as package

    def fail(*given, stream):
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED")

    monkeypatch.setattr(package, "attend", fail)
    arrays = draw(Sizes(1, 1, 1, 3, 5, 32, 32), np.float16)
    message = "kernel of attention must run to its end on the device, got RuntimeError: CUDA_ERROR"
    with pytest.raises(KernelError, match=message):
        mhakit.attention(*arrays, backend="cuda")


BAD_OUTS = {
    "on the host": (lambda: np.zeros((2, 4, 3, 5), np.float32), DTypeError, "out must be an array on the inputs' CUDA device, got ndarray"),
    "of another shape": (lambda: Held(np.zeros((2, 4, 3, 4), np.float32)), ShapeError, r"out must have shape \(2, 4, 3, 5\), got shape \(2, 4, 3, 4\)"),
    "of another dtype": (lambda: Held(np.zeros((2, 4, 3, 5))), DTypeError, "out must have dtype float32, got float64"),
    "read-only": (lambda: Held(np.zeros((2, 4, 3, 5), np.float32), data=(4096, True)), ParameterError, "out must be writeable, got a read-only array"),
    "an input": (lambda: Held(VALUE.reshape(-1)[: 2 * 4 * 3 * 1].reshape(2, 4, 3, 1).repeat(5, 3)[..., :5], data=(VALUE.ctypes.data, False)), ParameterError, "out must share no memory with value"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OUTS)
def test_an_out_that_does_not_fit_is_named(name, device):
    make, error, message = BAD_OUTS[name]
    with pytest.raises(error, match=message):
        mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), out=make())


def test_arrays_on_two_devices_are_named(device):
    message = "key must lie on the device of the first array, CUDA device 0, got one on CUDA device 1; copy it there"
    with pytest.raises(ParameterError, match=message):
        mhakit.attention(Tensor(QUERY), Elsewhere(KEY), Tensor(VALUE))


def test_work_goes_to_the_callers_stream_and_waits_for_the_others(device, monkeypatch):
    from numba import cuda

    from mhakit.backends.cuda import calling, launch

    started, waits = [], []

    class Event:
        def record(self, stream):
            self.of = stream

        def wait(self, stream):
            waits.append((self.of, stream))

    monkeypatch.setattr(cuda, "event", Event)
    monkeypatch.setattr(
        calling, "start", lambda *given: (started.append(given[3]), launch.start(*given))
    )
    output = mhakit.attention(Held(QUERY, stream=77), Held(KEY, stream=88), Held(VALUE))
    assert started == [77]
    assert waits == [(88, 77)]
    assert output.stream == 77
    tensor = Tensor(QUERY, stream=66)
    mhakit.attention(tensor, Tensor(KEY), Tensor(VALUE))
    assert tensor.asked == 66, "DLPack is asked to be ready on the stream that is worked on"
    assert started[1:] == [66]


def test_a_torch_tensor_is_worked_on_in_torchs_stream(device, monkeypatch):
    class Torch:
        Tensor = Tensor

        class cuda:
            @staticmethod
            def current_stream(device):
                return type("Stream", (), {"cuda_stream": 0})

    monkeypatch.setitem(sys.modules, "torch", Torch)
    tensor = Tensor(QUERY)
    tensor.device = "cuda:0"
    assert read(tensor, "query").stream == 1, "0 is the default stream, which DLPack calls 1"
    assert tensor.asked == 1


def test_a_grid_larger_than_the_devices_is_gone_through_in_steps(device, monkeypatch):
    from mhakit.backends.cuda import launch

    arrays = (QUERY, KEY, VALUE)
    weights = mhakit.attention_weights(QUERY, KEY)

    def run():
        yield mhakit.attention(*arrays, backend="cuda")
        yield mhakit.attention_scores(QUERY, KEY, backend="cuda")
        yield mhakit.attention_weights(QUERY, KEY, backend="cuda")
        yield mhakit.softmax(weights, backend="cuda")
        yield mhakit.weighted_sum(weights, VALUE, backend="cuda")
        yield mhakit.merge_attention((QUERY, weights[..., 0]), backend="cuda")[0]
        yield mhakit.combine(QUERY, "head_scale", SCALED, backend="cuda")

    whole = list(run())
    monkeypatch.setattr(launch, "LARGEST_GRID", 3)
    for stepped, at_once in zip(run(), whole, strict=True):
        np.testing.assert_array_equal(stepped, at_once)


SCALED = {"gain": np.linspace(0, 1, 4), "weight": np.eye(12), "bias": np.ones(12)}


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


def test_heads_on_a_device_are_combined_there(device):
    combined = mhakit.combine(Held(QUERY), "head_scale", SCALED)
    expected = mhakit.combine(QUERY, "head_scale", SCALED, backend="cuda")
    np.testing.assert_array_equal(at(combined), expected)
    learned = {"weight": np.ones((3, 6), np.float32), "bias": np.ones(6, np.float32)}
    there = {name: Held(array) for name, array in learned.items()}
    for parameters in (learned, there):
        result = at(mhakit.combine(Held(QUERY[0]), "sum", parameters))
        np.testing.assert_array_equal(
            result, mhakit.combine(QUERY[0], "sum", learned, backend="cuda")
        )


def test_a_combination_that_computes_in_numpy_is_refused_by_name(device):
    message = "combination 'attention_over_heads' must plan without reading arrays that are on a CUDA device, got .*; copy them to the host"
    learned = {"query": np.ones((12, 3)), "weight": np.ones((3, 12)), "bias": np.ones(12)}
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.combine(
            Held(QUERY),
            "attention_over_heads",
            learned,
            hidden_states=Held(np.ones((2, 3, 12), np.float32)),
        )

    class Forward(mhakit.plugin_api.HeadCombination):
        name = "forward"
        reference = "a test"

        def parameters(self, shape):
            return {}

        def forward(self, heads, parameters, **given):
            return heads.sum(axis=1), None

    message = "combination 'forward' must return a plan to run on backend 'cuda', got one that computes in NumPy; use backend='cpu'"
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.combine(QUERY, Forward(), backend="cuda")


def test_bfloat16_is_rounded_and_widened_as_ml_dtypes_does(simulator):
    """Half of the numbers lie half way between two: a tie goes to the even one."""
    from mhakit.backends.cuda.storage import reader, writer

    bits = np.random.default_rng(0).integers(0, 2**31, 400, np.uint32)
    bits[::2] = bits[::2] & 0xFFFF0000 | 0x8000
    numbers = [*bits.view(np.float32), np.float32(np.inf), np.float32(-0.0), np.float32(np.nan)]
    store, read = writer("bfloat16").py_func, reader("bfloat16", np.float32).py_func
    for number in numbers:
        exact = np.float32(number).astype(ml_dtypes.bfloat16)
        stored = store(np.float32(number))
        np.testing.assert_array_equal(
            np.uint16(stored).view(ml_dtypes.bfloat16).astype(float), exact.astype(float)
        )
        np.testing.assert_array_equal(read(stored), exact.astype(np.float32))
