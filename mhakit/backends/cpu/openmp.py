"""Leave OpenMP as it was found.

Numba's OpenMP layer turns nested regions on in the thread that starts its threads. Whoever shares
that runtime suffers: torch, imported later, then opens regions within regions and takes four times
as long. Kernels of this backend nest nothing.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["active_levels", "set_active_levels"]


def active_levels() -> int:
    """Return how deep parallel regions may nest in this thread; 1 where OpenMP is not loaded."""
    runtime = _runtime()
    return 1 if runtime is None else int(runtime.omp_get_max_active_levels())


def set_active_levels(levels: int) -> None:
    """Let parallel regions nest so deep in this thread, where OpenMP is loaded."""
    runtime = _runtime()
    if runtime is not None:
        runtime.omp_set_max_active_levels(levels)


def _runtime() -> ctypes.CDLL | None:
    """Return GNU's runtime if it is loaded already; asking loads nothing."""
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOW | os.RTLD_NOLOAD)
    except (AttributeError, OSError):  # no such flag on this system, or not loaded
        return None
