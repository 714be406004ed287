"""Compile every kernel ahead, for processes to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

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
    projection,
    scoring,
    softmax,
    weighing,
    weighted_sum,
)

__all__ = ["kernel_folder", "warm_up"]

WORKERS = {
    "attention": attention._run,
    "decoding": decoding._run,
    "scoring": scoring._run,
    "softmax": softmax._run,
    "weighing": weighing._run,
    "weighted_sum": weighted_sum._run,
    "merging": merging._run,
    "projection": projection._run,
    "combination": combination._run,
    "combination_gradient": combination_gradient._run,
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
    began = perf_counter()
    launch.compile_driver()
    hits = sum(launch._drive.stats.cache_hits.values())
    yield "threads", "any", perf_counter() - began, hits > 0
