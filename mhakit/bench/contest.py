"""What a row's work becomes before it is timed: mhakit's call, and its peers' by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mhakit.errors import MissingExtra

__all__ = ["Call", "Contest", "Peer", "installed", "load_peers", "need", "threads", "torch_alike"]

Call = Callable[[], object]

_OPENMP = "numba.np.ufunc.omppool"
_MODULES = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "numpy": ("numpy",),
    "jax": ("jax", "jaxlib"),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer's call, checked; ``note`` is which of its forms it is, where it has several."""

    call: Call
    note: str = ""


@dataclass(frozen=True, slots=True)
class Contest:
    """mhakit's call, its work in FLOPs and in bytes read, and how to make and check each peer."""

    mine: Call
    peers: Mapping[str, Callable[[], Peer]]
    work: Mapping[str, float] = field(default_factory=dict)
    """FLOPs by ``"matmul"`` and bytes read by ``"read"``."""


def installed(peer: str) -> bool:
    """Return whether a peer is installed; it is not imported."""
    return all(map(find_spec, _MODULES[peer]))


def need(peer: str) -> None:
    """Raise MissingExtra unless a peer is installed, AssertionError where it would run badly."""
    missing = [module for module in _MODULES[peer] if find_spec(module) is None]
    if missing:
        raise MissingExtra(f"{missing[0]} is not installed; pip install {missing[0]} brings it")
    if peer == "torch" and "torch" not in sys.modules and _OPENMP in sys.modules:
        raise AssertionError("torch must be imported before Numba's threads start")


def load_peers(peers: Iterable[str] = ("torch", "onnxruntime")) -> None:
    """Import those of the peers that are installed, before any kernel runs.

    Numba's OpenMP layer switches nested regions on. Where torch is imported after it has started,
    both share one libgomp, and every product inside torch's attention starts threads of its own.
    """
    for peer in peers:
        if installed(peer):
            import_module(_MODULES[peer][0])


def torch_alike() -> Any:
    """Return torch, running on as many threads as mhakit."""
    import torch

    torch.set_num_threads(threads())
    if torch.get_num_threads() != threads():
        raise AssertionError(f"torch runs {torch.get_num_threads()} threads, mhakit {threads()}")
    return torch


@cache
def threads() -> int:
    """Return how many threads mhakit's kernels use, and so every peer."""
    from mhakit import backends

    return int(backends.select("cpu").machine()["threads"])
