"""Run a kernel over its work items, a slice at a time, so that Ctrl-C is heard in between."""

from __future__ import annotations

import struct
from typing import Any

from numpy.typing import NDArray

from mhakit.backends.cpu import launch
from mhakit.backends.cpu.launch import Kernel, threads

__all__ = ["run_in_slices"]

_HEAD = struct.Struct("=3q")

SLICE = 0.1e9
"""Nanoseconds of work, by estimate, between two looks at pending signals."""


def run_in_slices(
    kernel: Kernel, calls: NDArray[Any], items: int, work: float, *arguments: Any
) -> None:
    """Run ``kernel(calls, *arguments)`` on all items; ``work`` is an estimate in nanoseconds.

    ``calls`` is one record that begins with three int64: ``counter``, the next item, which
    workers raise as they take items; ``stop``, past the last one; and ``workers``.
    """
    workers = 1 if work < launch.SERIAL_BELOW else threads()
    slices = max(1, int(work / workers / SLICE))
    start = 0
    for i in range(1, slices + 1):
        stop = items * i // slices
        _HEAD.pack_into(calls, 0, start, stop, workers)
        kernel(calls, *arguments, work=work / slices)
        start = stop
