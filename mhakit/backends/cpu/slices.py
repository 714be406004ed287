"""Run a kernel over its work items, a slice at a time, so that Ctrl-C is heard in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.launch import Kernel, threads

__all__ = ["run_in_slices"]

SLICE = 0.1e9
"""Nanoseconds of work, by estimate, between two looks at pending signals."""


def run_in_slices(
    kernel: Kernel, calls: NDArray[Any], items: int, work: float, *arguments: Any
) -> None:
    """Run ``kernel(calls, *arguments)`` on all items; ``work`` is an estimate in nanoseconds.

    The kernel takes items from ``calls["counter"]`` on and stops at ``calls["stop"]``.
    """
    workers = threads()
    counter = np.zeros(1, np.int64)
    calls["workers"] = workers
    calls["counter"] = counter.ctypes.data
    slices = max(1, int(work / workers / SLICE))
    stop = 0
    for i in range(1, slices + 1):
        counter[0] = stop  # workers that found nothing left have counted on
        stop = items * i // slices
        calls["stop"] = stop
        kernel(calls, *arguments, work=work / slices)
