"""DLPack's capsule, read in place: its C structure by ctypes, nothing taken over or freed.

The layout is that of dlpack.h, version 0.8, which every producer hands out to a consumer that
asks for no later one. Whoever holds the capsule keeps the memory alive.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

from mhakit.errors import MissingExtra

__all__ = ["Tensor", "UnknownDType", "unpack"]

FLOAT, BFLOAT, BOOL, INT, UINT = 2, 4, 6, 0, 1
_NAMES = {FLOAT: "float", INT: "int", UINT: "uint"}


class Tensor(NamedTuple):
    """What a capsule says of memory."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    """in numbers; None where they lie one after the other"""
    dtype: np.dtype[Any]


class UnknownDType(Exception):
    """A dtype that NumPy has no name for."""


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _DType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)


def unpack(capsule: object) -> Tensor:
    """Return what a capsule says; it still owns what it points to."""
    place = _pointer(capsule, b"dltensor")
    tensor = _Tensor.from_address(place)
    axes = range(tensor.ndim)
    return Tensor(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[i] for i in axes),
        strides=tuple(tensor.strides[i] for i in axes) if tensor.strides else None,
        dtype=_dtype(tensor.dtype),
    )


def _dtype(told: _DType) -> np.dtype[Any]:
    if told.lanes == 1 and told.code == BFLOAT and told.bits == 16:
        return _bfloat16()
    if told.lanes == 1 and told.code == BOOL and told.bits == 8:
        return np.dtype(np.bool_)
    if told.lanes == 1 and told.code in _NAMES and told.bits in (8, 16, 32, 64):
        return np.dtype(f"{_NAMES[told.code]}{told.bits}")
    raise UnknownDType(f"got DLPack's dtype {told.code} of {told.bits} bits")


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtra(
            "bfloat16 needs the ml_dtypes package; pip install 'mhakit[bf16]'"
        ) from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
