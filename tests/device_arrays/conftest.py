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
