"""Whether there is a device to run on, and if not, why."""

from __future__ import annotations

from numba import cuda

__all__ = ["why_absent"]


def why_absent() -> str | None:
    """Return None where a CUDA device is ready, or else what is missing."""
    if cuda.is_available():
        return None
    error = cuda.cuda_error()
    if error is not None:
        return f"no CUDA driver that works ({str(error).strip().splitlines()[0]})"
    return "a CUDA driver and no CUDA device"
