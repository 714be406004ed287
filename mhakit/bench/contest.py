"""What a row's work becomes before it is timed: mhakit's call, and its peers' by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec

from mhakit.errors import MissingExtra

__all__ = ["Call", "Contest", "Peer", "installed", "need", "threads"]

Call = Callable[[], object]

_MODULES = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx"), "numpy": ("numpy",)}


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
    """Raise MissingExtra unless a peer is installed."""
    missing = [module for module in _MODULES[peer] if find_spec(module) is None]
    if missing:
        raise MissingExtra(f"{missing[0]} is not installed; pip install {missing[0]} brings it")


@cache
def threads() -> int:
    """Return how many threads mhakit's kernels use, and so every peer."""
    from mhakit import backends

    return int(backends.select("cpu").machine()["threads"])
