"""Compile a kernel twice, parallel and serial, and run the one that is safe and fast here.

A parallel region is entered by one Python thread at a time, and never in a forked child:
Numba's workqueue layer aborts a process in which two threads enter it, and its OpenMP layer
ends a forked child. Whoever finds the region taken runs the serial form, which releases the
GIL and gives the same bits.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

from mhakit.backends import steps
from mhakit.backends.cpu import simd
from mhakit.backends.cpu.flags import FLAGS

__all__ = ["Kernel", "kernel", "source_stamp", "threads"]

SERIAL_BELOW = 20_000
"""Nanoseconds of work under which entering a parallel region costs more than it saves."""

_region = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked, _region
    _forked = True
    _region = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def source_stamp() -> str:
    """Return a digest of all that kernels inline, so that an edit anywhere recompiles them.

    Numba itself stamps the file of the kernel only: a changed intrinsic or helper in another
    file would go unnoticed and the old machine code would run.
    """
    digest = hashlib.sha256(f"{simd.VECTOR_BYTES}".encode())
    for path in (Path(steps.__file__), *sorted(Path(__file__).parent.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def threads() -> int:
    """Return how many threads a parallel kernel uses in this Python thread."""
    return int(numba.get_num_threads())


class _StampedCache(FunctionCache):
    """Numba's cache on disk, its key widened by the sources and the form of the kernel."""

    def __init__(self, py_func: Callable[..., Any], form: str) -> None:
        super().__init__(py_func)
        self._form = form

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._form, source_stamp())


class Kernel:
    """One Python body compiled with ``prange`` parallel and serial; call it to run either."""

    def __init__(self, body: Callable[..., Any], *, cached: bool = True) -> None:
        self.parallel = numba.njit(body, parallel=True, **FLAGS)
        self.serial = numba.njit(body, **FLAGS)
        if cached:
            self.parallel._cache = _StampedCache(body, "parallel")
            self.serial._cache = _StampedCache(body, "serial")
        self.__doc__ = body.__doc__
        self.__name__ = body.__name__

    def __call__(self, *args: Any, work: float) -> None:
        """Run on ``args``; ``work`` is an estimate in nanoseconds on one core."""
        if work < SERIAL_BELOW or _forked or not _region.acquire(blocking=False):
            self.serial(*args)
            return
        try:
            self.parallel(*args)
        finally:
            _region.release()


def kernel(body: Callable[..., Any]) -> Kernel:
    """Turn a module-level function into a `Kernel` that is cached on disk."""
    return Kernel(body)
