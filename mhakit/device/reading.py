"""A caller's array on a device -> `DeviceArray`, by DLPack or ``__cuda_array_interface__``.

DLPack comes first where an array speaks both: the other protocol knows no bfloat16, and torch
calls its bfloat16 tensors float16 in it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from mhakit.device import dlpack
from mhakit.device.array import DeviceArray
from mhakit.errors import DTypeError, MissingExtra, ParameterError

__all__ = ["is_on_device", "read"]

CUDA_DEVICES = (2, 13)
"""DLPack's numbers for memory of a CUDA device, and for memory that it shares with the host."""
LEGACY_STREAM = 1


def is_on_device(value: object) -> bool:
    """Whether an object is an array in the memory of a CUDA device."""
    if isinstance(value, (np.ndarray, np.generic)):
        return False
    return isinstance(value, DeviceArray) or _speaks_dlpack(value) or _interface(value) is not None


def read(value: Any, name: str) -> DeviceArray:
    """Return where an array on a device lies, or raise an error that names it."""
    if isinstance(value, DeviceArray):
        return value
    array = _by_dlpack(value, name) if _speaks_dlpack(value) else _by_interface(value, name)
    item = array.itemsize
    if array.size and not array.address:
        raise ParameterError(
            f"{name} must lie in memory, got address 0 and shape {array.shape}; "
            "what it held may have been freed"
        )
    if array.size and (array.address % item or any(stride % item for stride in array.strides)):
        raise ParameterError(
            f"{name} must be aligned to its numbers of {item} bytes, got address "
            f"{array.address:#x} and strides {array.strides}; pass a copy"
        )
    return array


def _speaks_dlpack(value: object) -> bool:
    tell = getattr(value, "__dlpack_device__", None)
    try:
        return tell is not None and hasattr(value, "__dlpack__") and tell()[0] in CUDA_DEVICES
    except Exception:  # an array that cannot say where it is, is for NumPy to try
        return False


def _interface(value: object) -> dict[str, Any] | None:
    try:
        interface = getattr(value, "__cuda_array_interface__", None)
    except Exception:  # torch refuses so for a tensor that is traced or on the host
        return None
    return interface if isinstance(interface, dict) else None


def _by_interface(value: Any, name: str) -> DeviceArray:
    interface = _interface(value)
    assert interface is not None
    if interface.get("mask") is not None:
        raise DTypeError(
            f"{name} must not be a masked array, whose mask would be lost; "
            "pass its data, and what is hidden as mask="
        )
    told = getattr(value, "dtype", None)  # "<V2" alone does not say bfloat16
    try:
        dtype: np.dtype[Any] = np.dtype(interface["typestr"])
        if isinstance(told, np.dtype) and told.name == "bfloat16":
            dtype = told
        shape = tuple(int(size) for size in interface["shape"])
        strides = interface.get("strides")
        strides = _in_order(shape, dtype.itemsize) if strides is None else map(int, strides)
        address, readonly = interface["data"]
        return DeviceArray(
            address=int(address or 0),
            shape=shape,
            strides=tuple(strides),
            dtype=dtype,
            owner=value,
            stream=interface.get("stream"),
            readonly=bool(readonly),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DTypeError(
            f"{name} must tell shape, typestr and data by __cuda_array_interface__, got "
            f"{type(value).__name__} ({type(error).__name__}: {error}); pass an array of torch, "
            "CuPy or Numba"
        ) from error


def _by_dlpack(value: Any, name: str) -> DeviceArray:
    stream = _stream_of(value)
    try:
        tensor = dlpack.unpack(value.__dlpack__(stream=LEGACY_STREAM if stream is None else stream))
    except dlpack.UnknownDType as error:
        raise DTypeError(f"{name} must be float64, float32, float16 or bfloat16, {error}") from None
    except MissingExtra:
        raise
    except Exception as error:
        raise DTypeError(
            f"{name} must be an array that DLPack can hand over, got {type(value).__name__} "
            f"({error}); pass a detached copy"
        ) from error
    item = tensor.dtype.itemsize
    strides = tensor.strides
    return DeviceArray(
        address=tensor.address,
        shape=tensor.shape,
        strides=_in_order(tensor.shape, item)
        if strides is None
        else tuple(step * item for step in strides),
        dtype=tensor.dtype,
        owner=value,
        device=int(value.__dlpack_device__()[1]),
        stream=stream,
    )


def _stream_of(value: Any) -> int | None:
    """Return the stream that the array's library is at work on, where it tells."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        # 0 is the legacy default stream, which DLPack calls 1
        return int(torch.cuda.current_stream(value.device).cuda_stream) or LEGACY_STREAM
    interface = _interface(value)
    return None if interface is None else interface.get("stream")


def _in_order(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    """Return the strides of an array whose numbers lie one after the other."""
    strides = []
    for size in reversed(shape):
        strides.append(item)
        item *= max(size, 1)
    return tuple(reversed(strides))
