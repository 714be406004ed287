"""What is known of an array on a device: address, shape, strides. Its numbers stay where they are.

It has the few members of an ndarray that checks and views need, so that one code reads both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeGuard

import numpy as np

from mhakit.errors import DTypeError

__all__ = ["DeviceArray", "is_device_array"]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """A view of device memory."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """in bytes"""
    dtype: np.dtype[Any]
    owner: Any
    """the caller's array, which keeps the memory alive and is what is handed back"""
    device: int | None = None
    """its ordinal; None where the array does not tell, and the driver is asked"""
    stream: int | None = None
    """the stream on which its numbers are made; None is the default one"""
    readonly: bool = False

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: object) -> DeviceArray:
        """View with axes of size 1 put in front: ``array[None]``, and nothing else."""
        keys = key if isinstance(key, tuple) else (key,)
        if any(one is not None for one in keys):
            raise IndexError(f"a device array takes None alone, got {key!r}")
        front = len(keys)
        return replace(self, shape=(1,) * front + self.shape, strides=(0,) * front + self.strides)

    def swapaxes(self, first: int, second: int) -> DeviceArray:
        """View with two axes exchanged."""
        order = list(range(self.ndim))
        order[first], order[second] = second, first
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in order),
            strides=tuple(self.strides[axis] for axis in order),
        )

    def broadcast_to(self, shape: tuple[int, ...]) -> DeviceArray:
        """View with stride 0 along what is repeated; ValueError as NumPy raises it."""
        np.broadcast_shapes(self.shape, shape)
        front = len(shape) - self.ndim
        if front < 0 or any(
            size not in (1, whole) for size, whole in zip(self.shape, shape[front:], strict=True)
        ):
            raise ValueError(f"shape {self.shape} does not broadcast to {shape}")
        strides = (0,) * front + tuple(
            0 if size == 1 else stride
            for size, stride in zip(self.shape, self.strides, strict=True)
        )
        return replace(self, shape=shape, strides=strides)

    def shares_memory(self, other: DeviceArray) -> bool:
        """Whether a number of one is a number of the other, by their addresses."""
        return bool(np.shares_memory(self._addresses(), other._addresses()))

    def _addresses(self) -> np.ndarray[Any, Any]:
        """Return an ndarray that says where the numbers lie: it must never be read."""
        return np.asarray(_Addresses(self))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The view as others take it, the bits of bfloat16 as unsigned integers."""
        return {
            "shape": self.shape,
            "strides": self.strides,
            "typestr": "<u2" if self.dtype.name == "bfloat16" else self.dtype.str,
            "data": (self.address, self.readonly),
            "version": 2,
        }

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise DTypeError(
            "an array must be in host memory to be read by NumPy, got one on a CUDA device; "
            "copy it to the host"
        )


def is_device_array(array: object) -> TypeGuard[DeviceArray]:
    """Whether a `DeviceArray` stands where an ndarray would."""
    return isinstance(array, DeviceArray)


class _Addresses:
    def __init__(self, array: DeviceArray) -> None:
        interface = dict(array.__cuda_array_interface__)
        interface["data"] = (array.address, True)
        self.__array_interface__ = {**interface, "version": 3}
