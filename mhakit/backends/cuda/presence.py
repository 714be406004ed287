"""Whether there is a device to run on, and if not, why; and what it can do."""

from __future__ import annotations

from typing import Any

from numba import cuda
from numba.cuda.core import config

from mhakit.backends.cuda import memory
from mhakit.device import DeviceArray

__all__ = ["capability_of", "why_absent"]


def why_absent() -> str | None:
    """Return None where a CUDA device is ready, or else what is missing."""
    if cuda.is_available():
        return None
    error = cuda.cuda_error()
    if error is not None:
        return f"no CUDA driver that works ({str(error).strip().splitlines()[0]})"
    return "a CUDA driver and no CUDA device"


def capability_of(array: Any) -> tuple[int, int] | None:
    """Return the compute capability of the device that works on an array; None if simulated."""
    if config.ENABLE_CUDASIM:
        return None
    if isinstance(array, DeviceArray):
        device = cuda.gpus[memory.ordinal(array)]
    else:
        device = cuda.get_current_device()
    major, minor = device.compute_capability
    return int(major), int(minor)
