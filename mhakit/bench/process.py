"""A process in which all sides run alike: as many threads, and none waits in a loop.

A spinning barrier turns a tenth of a millisecond into several where another process has a core,
and a thread of OpenBLAS that still waits in a loop takes a core from the next turn: attention
after a product of NumPy's then takes twice as long. What decides it is read from the environment
when a library is loaded: so the command starts itself once more with the environment settled.
mhakit itself sets nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

__all__ = ["default_threads", "environment", "run_again", "settled"]

_PASSIVE = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4"}
_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NPROC",  # XLA's, under jax
)


def default_threads() -> int:
    """Return the threads of the table, two, or one where there is one core."""
    return min(2, os.cpu_count() or 1)


def environment(threads: int) -> dict[str, str]:
    """Return what must stand in the environment before a library is loaded."""
    return _PASSIVE | dict.fromkeys(_COUNTS, str(threads))


def settled(threads: int, given: Mapping[str, str] | None = None) -> bool:
    """Return whether the environment stands as it must."""
    present = os.environ if given is None else given
    return all(present.get(name) == value for name, value in environment(threads).items())


def run_again(arguments: Sequence[str], threads: int) -> int:
    """Run the command with these arguments in a process of its own; return its exit code."""
    command = [sys.executable, "-m", "mhakit.cli", *arguments]
    return subprocess.call(command, env={**os.environ, **environment(threads)})
