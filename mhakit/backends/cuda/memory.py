"""Memory of the device: arrays copied in and out, borrowed from a caller, and made anew."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda.storage import stored
from mhakit.device import DeviceArray, read
from mhakit.errors import MhakitError, OutOfMemory

__all__ = [
    "borrow",
    "copy_in",
    "copy_out",
    "core_of",
    "empty",
    "make",
    "ordinal",
    "placeholder",
    "stream_at",
]


def copy_in(array: np.ndarray[Any, Any], name: str, stream: Any) -> Any:
    """Copy an array of the host to the device; an axis that was broadcast is copied once."""
    core = np.ascontiguousarray(core_of(array)).view(stored(array.dtype))
    with _room_for(core.shape, core.dtype, name):
        return cuda.to_device(np.broadcast_to(core, array.shape), stream=stream)


def core_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array of the host with 1 number along each axis that was broadcast."""
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]


def copy_out(array: Any, into: np.ndarray[Any, Any], stream: Any) -> None:
    """Copy an array of the device to the host, waiting for what makes it."""
    if into.size:
        into[...] = array.copy_to_host(stream=stream).view(into.dtype)


@cache
def placeholder(device: int | None, dtype: np.dtype[Any], ndim: int) -> Any:
    """Return an array of the right type where there is none: compiled in, and never read."""
    return make((1,) * ndim, dtype, "a placeholder", 0)


def borrow(array: DeviceArray) -> Any:
    """Return Numba's view of memory that the caller owns."""
    return cuda.from_cuda_array_interface(array.__cuda_array_interface__, owner=array, sync=False)


def make(shape: tuple[int, ...], dtype: np.dtype[Any], name: str, stream: Any) -> Any:
    """Return new memory of the device, as Numba's array."""
    with _room_for(shape, dtype, name):
        return cuda.device_array(shape, dtype=stored(dtype), stream=stream)


def empty(
    shape: tuple[int, ...], dtype: np.dtype[Any], like: DeviceArray, name: str
) -> DeviceArray:
    """Return new memory on the device and stream of ``like``, made by the library of its owner.

    torch and CuPy make their own arrays; for every other owner it is Numba's.
    """
    owner = like.owner
    root = type(owner).__module__.partition(".")[0]
    with _room_for(shape, dtype, name):
        if root == "torch":
            torch = sys.modules["torch"]
            made = owner.new_empty(shape, dtype=getattr(torch, dtype.name))
        elif root == "cupy" and dtype.name != "bfloat16":
            cupy = sys.modules["cupy"]
            with cupy.cuda.Device(ordinal(like)):
                made = cupy.empty(shape, dtype)
        else:
            with cuda.gpus[ordinal(like)]:
                made = cuda.device_array(shape, dtype=dtype, stream=stream_at(like.stream))
    return read(made, name)


@contextmanager
def _room_for(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Iterator[None]:
    """Turn a refusal of memory into the error that says how much was asked for."""
    try:
        yield
    except MhakitError:
        raise
    except Exception as error:
        # the driver's error 2, torch's own class and CuPy's have only their words in common
        if not isinstance(error, MemoryError) and not _is_shortage(error):
            raise
        size = math.prod(shape) * dtype.itemsize
        raise OutOfMemory(
            f"{name} of shape {tuple(shape)} and dtype {dtype.name} must fit in the device's "
            f"memory, got a request of {size:,} bytes that was refused; "
            "free arrays of the device, or ask for fewer rows or heads at a time"
        ) from error


def _is_shortage(error: Exception) -> bool:
    """Whether a class or a message says so, in whatever case and with whatever marks between."""
    letters = "".join(filter(str.isalpha, f"{type(error).__name__} {error}".upper()))
    return "OUTOFMEMORY" in letters


def ordinal(array: DeviceArray) -> int:
    """Return the device that an array lies on, asking the driver where the array cannot tell."""
    if array.device is not None:
        return array.device
    if not array.address:  # an array of no numbers lies anywhere
        return int(getattr(cuda.current_context().device, "id", 0))  # a simulated one has none
    return device_of(array.address)


def device_of(address: int) -> int:
    """Ask the driver on which device an address lies."""
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    status, found = driver.cuPointerGetAttribute(attribute, address)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise ValueError(f"address {address:#x} is no memory of a CUDA device: {status.name}")
    return int(found)


def stream_at(handle: int | None) -> Any:
    """Return Numba's stream of a handle, as both protocols number them."""
    if not handle:
        return 0
    if handle == 1:
        return cuda.legacy_default_stream()
    if handle == 2:
        return cuda.per_thread_default_stream()
    return cuda.external_stream(handle)
