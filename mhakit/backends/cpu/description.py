"""What attention would do with a problem, counted and not run."""

from __future__ import annotations

from typing import Any

import llvmlite
import numba
import numpy as np

from mhakit.backends.cpu import launch
from mhakit.backends.cpu.call import SOURCES, estimate, lanes_for, spare_lanes
from mhakit.backends.cpu.decoding import SEGMENT, TARGETS
from mhakit.backends.cpu.launch import threads
from mhakit.backends.cpu.simd import VECTOR_BYTES
from mhakit.problem import Problem

__all__ = ["describe", "machine"]


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, for ``mhakit.explain``."""
    assert problem.value is not None
    B, H, T, D = problem.query.shape
    G, E = problem.key.shape[1], problem.value.shape[3]
    item = problem.real.itemsize
    rows = H // G * T
    decoded = T <= TARGETS
    lanes = rows if decoded else lanes_for(rows, problem.real)
    full, border, skipped, scores = _count_tiles(problem, lanes)
    used = threads() if estimate(problem) >= launch.SERIAL_BELOW else 1
    half = problem.query.dtype.itemsize == 2
    if decoded:
        kernel, order = "cpu.decoding, segments", f"segments of {SEGMENT} sources, merged in order"
        why = f"T is at most {TARGETS}: registers hold a row's width, threads share the sources"
        segments = max(-(-problem.key.shape[2] // SEGMENT), 1)
        kept = B * G * (segments * rows * (E + 2) * item + 8)
        scratch = (rows * (D + E + 3 * SEGMENT) + SOURCES * max(D, E)) * item + 6 * 8 * rows
    else:
        kernel, order = (
            "cpu.attention, fused tiles",
            f"blocks of {SOURCES} sources, in order by fma",
        )
        why = "queries ride in the lanes of the registers, online softmax over blocks of sources"
        kept = 0
        staged = SOURCES * max(D, E) if half else 0
        turned = SOURCES if problem.mask is not None or problem.bias is not None else 0
        scratch = ((D + SOURCES + E + 4 + turned) * lanes + staged) * item + 6 * 8 * lanes
    if problem.score_mod is not None:
        why += ", score_mod compiled in"
    return {
        "kernel": kernel,
        "why": why,
        "order": order,
        "threads": used,
        "lanes": VECTOR_BYTES // item,
        "tile": (lanes, SOURCES),
        "tiles_full": full * G,
        "tiles_border": border * G,
        "tiles_skipped": skipped * G,
        "scores": scores * G,
        "scratch_bytes": used * scratch + kept,
    }


def _count_tiles(problem: Problem, lanes: int) -> tuple[int, int, int, int]:
    """Return how many tiles of one key/value head show everything, something, nothing.

    And how many scores those hold that show any; the first tile is as narrow as its targets.
    """
    B, H, T, _ = problem.query.shape
    S, ratio = problem.key.shape[2], H // problem.key.shape[1]
    if B * T * S == 0:
        return 0, 0, 0, 0
    rows = ratio * T
    tiles = -(-rows // lanes)
    register = VECTOR_BYTES // problem.real.itemsize
    row = np.arange(tiles * lanes) - spare_lanes(rows, lanes, register)
    target = np.clip(row, 0, rows - 1) % T
    blocks = -(-S // SOURCES)
    width = ((row >= 0) & (row < rows)).reshape(tiles, lanes).sum(axis=1)
    full = border = scores = 0
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
        scores += int((width * touched).sum()) * SOURCES
    return full, border, B * tiles * blocks - full - border, scores


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
