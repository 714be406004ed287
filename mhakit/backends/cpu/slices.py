"""Run a kernel over its work items, a slice at a time, so that Ctrl-C is heard in between."""

from __future__ import annotations

import struct
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu import launch
from mhakit.backends.cpu.launch import Compiled, leave_region, runs_alone, threads
from mhakit.backends.cpu.record import WHOLE, address_of
from mhakit.backends.cpu.simd import VECTOR_BYTES
from mhakit.errors import OutOfMemory

__all__ = ["run_in_slices"]

_HEAD, _PAUSE, _one = struct.Struct("=5q"), struct.Struct("=3q"), struct.Struct("=q")

SLICE = 0.1e9
"""Nanoseconds between two looks at pending signals, as far as they can be told ahead."""

UNKNOWN = 0.05
"""The part of a slice to begin with where an estimate may be far too low."""

GROWTH = 4
"""How much longer than the slice before it one may be: what was measured may have been light."""

REFUSED = (
    "the scratch of a kernel must fit in memory, got a request that was refused; "
    "ask for fewer targets or narrower heads at a time"
)

TRUSTED = 0.2
"""The part of an estimate that a measured pace never goes below: the next items may be heavier."""


def run_in_slices(
    kernel: Compiled,
    calls: NDArray[Any],
    items: int,
    work: float,
    *,
    unknown: bool = False,
    blocks: int = 1,
    seen: int = 0,
    state: int = 0,
) -> None:
    """Run a kernel on all items; ``work`` is an estimate in nanoseconds.

    It is ``unknown`` where a user's function, or memory that is had anew, may cost anything.

    ``calls`` are records that begin with `HEAD`. Where an item is of several ``blocks``, a launch
    may do some of them; what it has then are ``state`` bytes, a whole number of registers. Where
    most blocks take no time, ``seen`` tells how many do.
    """
    head: Any = calls  # any buffer will do
    if state:
        _one.pack_into(head, 64, state)
    if work < launch.SERIAL_BELOW:
        _launch(kernel, calls, 0, items, 1)
        return
    if work <= SLICE and not unknown:  # whole in one slice: nothing is measured
        try:
            _launch(kernel, calls, 0, items, 1 if runs_alone(work) else min(threads(), items))
        finally:
            leave_region()
        return
    seen = seen or blocks
    expected = pace = max(work, 1.0) / max(items * seen, 1)  # of one block of one item
    measured = 0.0
    budget = SLICE * UNKNOWN if unknown else SLICE
    room: NDArray[Any] | None = None
    start = block = flying = 0
    while start < items:
        try:
            workers = 1 if runs_alone(work) else min(threads(), items - start)
            if block == 0 and (blocks == 1 or pace * seen <= budget):
                count = max(int(budget / (pace * seen)), 1) * workers
                stop = start + -(-(items - start) // -(-(items - start) // count))
                done = -(-(stop - start) // workers) * seen
            else:
                if block == 0:
                    flying = min(workers, items - start)
                    if room is None or room.size < flying * state:
                        room = _room(flying * state)
                past = block + max(int(budget / pace) // -(-flying // workers), 1)
                place = -(-address_of(room) // VECTOR_BYTES) * VECTOR_BYTES
                _PAUSE.pack_into(head, 40, block, past, place)
                stop = start + flying
                done = -(-flying // workers) * (min(past, blocks) - block)
                block = past
            began = perf_counter_ns()
            _launch(kernel, calls, start, stop, workers)
            took = perf_counter_ns() - began
        finally:
            leave_region()
        if block == 0:
            start = stop
        elif block >= blocks:
            _PAUSE.pack_into(head, 40, *WHOLE)
            start, block = stop, 0
        measured = max(measured / 2, took / done)
        pace = max(measured, expected * TRUSTED if unknown else expected)
        budget = min(GROWTH * budget, SLICE)


def _room(size: int) -> NDArray[Any]:
    """Allocate what items in flight keep, from the first address for a register in it."""
    try:
        return np.empty(size + VECTOR_BYTES, np.uint8)
    except (MemoryError, ValueError) as error:  # more than there is, or than can be counted
        raise OutOfMemory(REFUSED) from error


def _launch(kernel: Compiled, calls: NDArray[Any], start: int, stop: int, workers: int) -> None:
    """Run on the items [start, stop); a worker that cannot have its scratch does not end."""
    head: Any = calls  # any buffer will do
    _HEAD.pack_into(head, 0, start, stop, workers, 0, start)
    kernel.run(calls, workers)
    if _one.unpack_from(head, 24)[0] != workers:
        raise OutOfMemory(REFUSED)
