"""What attention would do with a problem, counted and not run."""

from __future__ import annotations

from typing import Any

import llvmlite
import numba
import numpy as np

from mhakit.backends.cpu.call import SOURCES, estimate, lanes_for
from mhakit.backends.cpu.launch import SERIAL_BELOW, threads
from mhakit.backends.cpu.simd import VECTOR_BYTES
from mhakit.problem import Problem

__all__ = ["describe", "machine"]


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, for ``mhakit.explain``."""
    assert problem.value is not None
    _, H, T, D = problem.query.shape
    G, E = problem.key.shape[1], problem.value.shape[3]
    item = problem.real.itemsize
    lanes = lanes_for(H // G * T, problem.real)
    full, border, skipped = _count_tiles(problem, lanes)
    parallel = estimate(problem) >= SERIAL_BELOW
    half = problem.query.dtype.itemsize == 2
    rows = D + SOURCES + E + 4 + (SOURCES * max(D, E) // lanes if half else 0)
    reason = "queries ride in the lanes of the registers, online softmax over blocks of sources"
    if problem.score_mod is not None:
        reason += ", score_mod compiled in"
    return {
        "kernel": "cpu.attention, fused tiles",
        "why": reason,
        "order": f"blocks of {SOURCES} sources from source 0, each in order by fma",
        "threads": threads() if parallel else 1,
        "lanes": VECTOR_BYTES // item,
        "tile": (lanes, SOURCES),
        "tiles_full": full * G,
        "tiles_border": border * G,
        "tiles_skipped": skipped * G,
        "scratch_bytes": (threads() if parallel else 1) * (rows * lanes * item + 5 * 8 * lanes),
    }


def _count_tiles(problem: Problem, lanes: int) -> tuple[int, int, int]:
    """Return how many tiles of one key/value head show everything, something, nothing."""
    B, H, T, _ = problem.query.shape
    S, ratio = problem.key.shape[2], H // problem.key.shape[1]
    if B * T * S == 0:
        return 0, 0, 0
    tiles = -(-ratio * T // lanes)
    target = np.minimum(np.arange(tiles * lanes), ratio * T - 1) % T
    blocks = -(-S // SOURCES)
    full = border = 0
    for offset, length in zip(problem.query_offset, problem.key_lengths, strict=True):
        position = (target + offset).reshape(tiles, lanes)
        low = np.maximum(position - problem.left, 0)
        high = np.clip(position + problem.right + 1, 0, length)
        sees = low < high
        first = np.where(sees, low, S).min(axis=1)
        past = np.where(sees, high, 0).max(axis=1)
        all_first, all_past = low.max(axis=1), high.min(axis=1)
        touched = np.maximum(-(-past // SOURCES) - first // SOURCES, 0)
        block = np.arange(blocks)
        start = np.maximum(block * SOURCES, first[:, None])
        stop = np.minimum((block + 1) * SOURCES, past[:, None])
        whole = (start < stop) & (all_first[:, None] <= start) & (stop <= all_past[:, None])
        dense = int(whole.sum()) if problem.mask is None else 0
        full += dense
        border += int(touched.sum()) - dense
    return full, border, B * tiles * blocks - full - border


def machine() -> dict[str, Any]:
    """Return what the kernels run on: versions, threads, their layer, the width of a register."""
    return {
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "threads": threads(),
        "threading_layer": _threading_layer(),
        "vector_bytes": VECTOR_BYTES,
        "cpu": _cpu_name(),
    }


def _threading_layer() -> str:
    """Start the threads, since Numba names its layer only then."""
    _start(np.zeros(1))
    return str(numba.threading_layer())


@numba.njit(parallel=True)
def _start(array):
    for i in numba.prange(array.size):
        array[i] += 1


def _cpu_name() -> str:
    from llvmlite.binding import get_host_cpu_name

    return str(get_host_cpu_name())
