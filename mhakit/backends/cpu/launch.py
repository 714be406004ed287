"""Run a kernel in the calling thread or in all threads, whichever is safe and fast here.

A parallel region is entered by one Python thread at a time, and never in a forked child:
Numba's workqueue layer aborts a process in which two threads enter it, and its OpenMP layer
ends a forked child. Whoever finds the region taken runs alone, without the GIL, and
gets the same bits.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np.ufunc import parallel
from numpy.typing import NDArray

from mhakit.backends.cpu.caching import cache_of
from mhakit.backends.cpu.flags import FLAGS, FLAGS_ALONE
from mhakit.backends.cpu.linking import Kernel
from mhakit.backends.cpu.openmp import active_levels, set_active_levels
from mhakit.backends.cpu.record import address_of

__all__ = [
    "Compiled",
    "Worker",
    "compile_driver",
    "leave_region",
    "runs_alone",
    "threads",
]

SERIAL_BELOW = 20_000
"""Nanoseconds of work under which entering a parallel region costs more than it saves."""

_compiling = threading.RLock()
_region = threading.RLock()
"""Reentrant, so that whoever was interrupted with it in hand is not shut out."""
_forked = False
_started = False


def _before_fork() -> None:
    """Wait for whoever compiles: a child would find Numba's lock taken for ever."""
    _compiling.acquire()
    global_compiler_lock.acquire()


def _after_fork_in_parent() -> None:
    global_compiler_lock.release()
    _compiling.release()


def _after_fork_in_child() -> None:
    global _compiling, _forked, _region
    _forked = True
    global_compiler_lock.release()
    _compiling, _region = threading.RLock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def threads() -> int:
    """Return how many threads a parallel kernel uses in this Python thread.

    The first call starts them, and leaves OpenMP as it was.
    """
    global _started
    if _started:  # asked without the locks that starting them takes
        return int(parallel._get_num_threads())
    levels = active_levels()
    count = int(numba.get_num_threads())
    set_active_levels(levels)
    _started = True
    return count


def runs_alone(work: float) -> bool:
    """Whether to run in this thread; where not, the region is taken: call `leave_region`."""
    return work < SERIAL_BELOW or _forked or not _region.acquire(blocking=False)


def leave_region() -> None:
    """Give the parallel region back where this thread holds it.

    What tells is the lock: a Ctrl-C may come between taking it and writing that down.
    """
    try:
        _region.release()
    except RuntimeError:
        return  # another thread's, or nobody's


class Worker:
    """A kernel that takes its work from records; one compiled form runs alone and in threads.

    ``enter`` is a module-level function of a pointer to records, ``records`` their dtype for each
    computation dtype. Every thread runs the same machine code, compiled once and cached on disk.
    """

    def __init__(self, enter: Callable[..., None], records: Mapping[np.dtype[Any], Any]) -> None:
        self._enter, self._records = enter, records
        self._compiled: dict[np.dtype[Any], Compiled] = {}

    def of(self, real: np.dtype[Any]) -> Compiled:
        """Return the form of a computation dtype, compiled or loaded where it is new."""
        compiled = self._compiled.get(real)
        if compiled is None:
            with _compiling:
                compiled = self._compiled.get(real)
                if compiled is None:
                    compiled = self._compiled[real] = Compiled(self._enter, self._records[real])
        return compiled


class Compiled:
    """One form of a `Worker`: run it with its records."""

    def __init__(
        self, enter: Callable[..., None], record: np.dtype[Any], *, cached: bool = True
    ) -> None:
        pointer = numba.types.CPointer(numba.from_dtype(record))
        entry: Any = CFunc(
            enter, ((pointer,), numba.types.void), locals={}, options=dict(FLAGS_ALONE),
            pipeline_class=Kernel,
        )  # fmt: skip
        if cached:
            entry._cache = cache_of(enter, "worker")
        with _collecting_later():
            entry.compile()
        self.entry, self._address = entry, entry.address
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self._address)

    def run(self, calls: NDArray[Any], workers: int) -> None:
        """Run on records that begin with `HEAD` and say that there are so many workers."""
        place = address_of(calls)
        if workers == 1:
            self._run(place)
        else:
            if not _drive.overloads:
                compile_driver()
            _drive(self._address, place, workers)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Let Python's garbage wait while a kernel is compiled.

    A compiler keeps nearly all that it makes: looking for the rest, 25 MB, took a tenth of the
    time. What it made is old from the start, or the next collection would go through all of it.
    """
    collects = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if collects:
            if gc.get_freeze_count() == 0:  # else they would be thawed, too
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@intrinsic
def _call(typing: Any, entry: Any, place: Any) -> Any:
    """Call the function at an address with one integer."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return numba.types.void(numba.types.int64, numba.types.int64), codegen


def _drive_all(entry, place, workers):
    """Let every thread be one worker."""
    for _ in numba.prange(workers):
        _call(entry, place)


_drive = numba.njit(_drive_all, parallel=True, **FLAGS)
_drive._cache = cache_of(_drive_all, "parallel")


def compile_driver() -> None:
    """Compile or load what lets threads run a kernel."""
    with _collecting_later():
        _drive.compile((numba.types.int64,) * 3)
