"""What the table was measured on, and the two rates that bound attention there."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from mhakit.bench.contest import Call, installed, threads, torch_alike
from mhakit.bench.timing import fastest, turns

__all__ = ["Rate", "facts", "rate"]

SIDE = 2048
"""The matrices whose product is the rate: SIDE x SIDE."""
READ = 2**28
"""Bytes of the array that is read: several times a cache of the last level."""


class Rate(NamedTuple):
    """A call and its work: FLOPs of a product, or bytes read."""

    call: Call
    work: float
    who: str


@cache
def rate(name: str) -> Rate:
    """Return the machine's fastest product (``"matmul"``) or reading (``"read"``)."""
    calls = {"matmul": _products, "read": _readers}[name]()
    best = fastest(calls)
    return Rate(calls[best], {"matmul": 2.0 * SIDE**3, "read": float(READ)}[name], best)


def facts() -> dict[str, Any]:
    """Return the CPU, the threads, the versions, and the two rates as measured now."""
    from mhakit import backends

    told = backends.select("cpu").machine()
    rates = {name: rate(name) for name in ("matmul", "read")}
    return {
        "cpu": _cpu() or told["cpu"],
        "threads": told["threads"],
        "vector_bytes": told["vector_bytes"],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {name: _version(name) for name in PACKAGES},
        "matmul_gflops": _billions(rates["matmul"]),
        "matmul_by": rates["matmul"].who,
        "read_gb_per_second": _billions(rates["read"]),
        "read_by": rates["read"].who,
    }


PACKAGES = ("mhakit", "numpy", "numba", "torch", "onnxruntime")


def _products() -> dict[str, Call]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    out = np.empty_like(a)
    calls: dict[str, Call] = {"numpy": lambda: np.matmul(a, b, out=out)}
    if installed("torch"):
        torch = torch_alike()
        x, y, z = (torch.from_numpy(array) for array in (a, b, out))
        calls["torch"] = lambda: torch.matmul(x, y, out=z)
    return calls


def _readers() -> dict[str, Call]:
    """Return loops that do nothing but read: NumPy's run in threads, for they release the GIL."""
    words = np.random.default_rng(0).integers(0, 2**60, READ // 8, dtype=np.int64)
    parts = np.array_split(words, threads())
    pool = ThreadPoolExecutor(threads())

    def together() -> object:
        return list(pool.map(np.bitwise_or.reduce, parts))

    calls: dict[str, Call] = {"numpy": together}
    if installed("torch"):
        torch = torch_alike()
        numbers = torch.from_numpy(words).view(torch.float32)
        calls["torch"] = numbers.max
    return calls


def _billions(rate: Rate) -> float:
    """Return a rate in units of 10^9 a second, by the median of a few calls."""
    return rate.work / median(turns(rate.call, 5)) / 1e9


def _cpu() -> str | None:
    """Return the processor's name as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
