"""Compile every kernel ahead, for processes to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike

from mhakit.backends.cpu import (
    attention,
    caching,
    combination,
    combination_gradient,
    decoding,
    launch,
    merging,
    scoring,
    softmax,
    weighing,
    weighted_sum,
)
from mhakit.plugin_api import CombinationPlan

__all__ = ["kernel_folder", "warm_up"]

WORKERS = {
    "attention": attention._run,
    "decoding": decoding._run,
    "scoring": scoring._run,
    "softmax": softmax._run,
    "weighing": weighing._run,
    "weighted_sum": weighted_sum._run,
}
KERNELS = {
    "merging": merging._run,
    "combination": combination._weigh_rows,
    "combination_gradient": combination_gradient._pull_rows,
}


def kernel_folder() -> Path:
    """Return where compiled kernels lie; raise `ParameterError` where it cannot be written."""
    return caching.folder()


def warm_up(dtypes: Sequence[DTypeLike]) -> Iterator[tuple[str, str, float, bool]]:
    """Compile every kernel; yield its name, its dtype, the seconds and whether it was cached.

    ``dtypes`` are computation dtypes, float32 and float64; 16-bit arrays use float32.
    """
    for real in (np.dtype(dtype) for dtype in dtypes):
        for name, worker in WORKERS.items():
            began = perf_counter()
            hits = worker.of(real).entry.cache_hits
            yield name, real.name, perf_counter() - began, hits > 0
        for name, kernel in KERNELS.items():
            began, before = perf_counter(), _misses(kernel)
            _call(name, real)
            for signature in kernel.serial.signatures:
                kernel.parallel.compile(signature)
            yield name, real.name, perf_counter() - began, _misses(kernel) == before
    began = perf_counter()
    launch._drive.compile((numba.types.int64,) * 3)
    hits = sum(launch._drive.stats.cache_hits.values())
    yield "threads", "any", perf_counter() - began, hits > 0


def _misses(kernel: launch.Kernel) -> int:
    forms = kernel.serial, kernel.parallel
    return sum(sum(form.stats.cache_misses.values()) for form in forms)


def _call(name: str, real: np.dtype[Any]) -> None:
    """Run the serial form of a kernel on almost nothing."""
    heads, lse = np.ones((1, 2, 2, 2), real), np.ones((1, 2, 2), real)
    if name == "merging":
        merging.merge([heads], [lse], np.empty_like(heads), np.empty_like(lse))
        return
    plan = CombinationPlan(1, None, None, np.ones(2, real)[:, None, None], "sum")
    combined = combination.combine_heads(heads, plan, np.empty((1, 2, 2), real))
    if name == "combination_gradient":
        d_output = np.ones((1, 2, 2), real)
        combination_gradient.combine_heads_vjp(heads, plan, combined, d_output, True)
