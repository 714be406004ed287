"""Run a kernel over its work items, a slice at a time, so that Ctrl-C is heard in between."""

from __future__ import annotations

import struct
from typing import Any

from numpy.typing import NDArray

from mhakit.backends.cpu import launch
from mhakit.backends.cpu.launch import Compiled, Kernel, threads
from mhakit.errors import OutOfMemory

__all__ = ["run_in_slices"]

_HEAD, _ended = struct.Struct("=4q"), struct.Struct("=q")

SLICE = 0.1e9
"""Nanoseconds of work, by estimate, between two looks at pending signals."""


def run_in_slices(
    kernel: Kernel | Compiled, calls: NDArray[Any], items: int, work: float, *arguments: Any
) -> None:
    """Run ``kernel(calls, *arguments)`` on all items; ``work`` is an estimate in nanoseconds.

    ``calls`` are records that begin with `HEAD`.
    """
    workers = 1 if work < launch.SERIAL_BELOW else threads()
    slices = max(1, int(work / workers / SLICE))
    head: Any = calls  # any buffer will do
    start = 0
    for i in range(1, slices + 1):
        stop = items * i // slices
        _HEAD.pack_into(head, 0, start, stop, workers, 0)
        kernel(calls, *arguments, work=work / slices)
        if not _ended.unpack_from(head, 24)[0]:
            raise OutOfMemory(
                "the scratch of a kernel must fit in memory, got a request that was refused; "
                "ask for fewer targets or narrower heads at a time"
            )
        start = stop
