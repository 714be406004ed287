"""The simulator as a device that lends its memory."""

import numpy as np
import pytest

from material.device_arrays import Held


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


@pytest.fixture
def tiles(device, monkeypatch):
    """The tile kernels' launches done by their NumPy twins, on what lies at the addresses given."""
    from mhakit.backends.cuda import presence
    from mhakit.backends.cuda import tiles as package
    from mhakit.backends.cuda.check.twins import run_twin
    from mhakit.backends.cuda.tiles.segments import decoding_of, parts_shape

    launches = []

    def numbers(view):
        told = {"data": (view.address, False), "typestr": f"|V{view.dtype.itemsize}", "version": 3}
        told |= {"shape": view.shape, "strides": view.strides}
        memory_of = type("Memory", (), {"__array_interface__": told})
        return np.asarray(memory_of()).view(view.dtype)

    def attend(problem, out, lse, *, stream, variant=None):
        launches.append((problem, out, lse, stream))
        names = ("query", "key", "value", "mask", "bias", "sinks", "query_offset", "key_lengths")
        views = {name: getattr(problem, name) for name in names}
        there = {name: None if view is None else numbers(view) for name, view in views.items()}
        args = tuple(np.asarray(getattr(array, "_ary", array)) for array in problem.score_args)
        output, sums = run_twin(problem._replace(**there, score_args=args), variant)
        numbers(out)[...] = output
        if lse is not None:
            numbers(lse)[...] = sums

    def decode(problem, out, lse, parts, *, stream):
        shape = parts_shape(problem)
        assert (parts and parts.shape) == shape
        if shape is not None:
            numbers(parts)[...] = 0  # it is there, as large as it must be
        attend(problem, out, lse, stream=stream, variant=decoding_of(problem))

    monkeypatch.setattr(presence, "capability_of", lambda array: (9, 0))
    monkeypatch.setattr(package, "attend", attend)
    monkeypatch.setattr(package, "decode", decode)
    return launches
