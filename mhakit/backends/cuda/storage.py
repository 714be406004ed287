"""Numbers as they are stored and as kernels compute with them: device functions that convert.

bfloat16 travels as the bits of unsigned 16-bit integers, as the simulator and older chips have no
such type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

__all__ = ["device", "reader", "stored", "writer"]


def device(function: Callable[..., Any]) -> Any:
    """Return a plain or compiled scalar function as one that kernels call."""
    return cuda.jit(device=True)(getattr(function, "py_func", function))


def stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype under which a kernel sees an array."""
    return np.dtype(np.uint16) if dtype.name == "bfloat16" else dtype


@cache
def reader(name: str, real: Any) -> Any:
    """Return the device function that widens a stored number of that dtype to ``real``."""
    if name != "bfloat16":
        return device(lambda number: real(number))

    def widen(bits):
        return real(np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32))

    return device(widen)


@cache
def writer(name: str) -> Any:
    """Return the device function that rounds a number to that dtype, ties to even."""
    if name != "bfloat16":
        narrow = np.dtype(name).type
        return device(lambda number: narrow(number))

    def round_to_bfloat16(number):
        bits = np.uint32(number.view(np.uint32))
        if number != number:
            return np.uint16(0x7FC0)
        odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return device(round_to_bfloat16)
