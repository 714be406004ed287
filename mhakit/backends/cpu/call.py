"""A `Problem` as one record of numbers: the single argument that attention's kernels read.

Arrays go as an address and strides in bytes, so that a kernel is compiled once a computation
dtype, whatever the layout, the strides and the keywords.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.memory import KINDS
from mhakit.backends.cpu.simd import VECTOR_BYTES
from mhakit.problem import Problem

__all__ = ["CALL", "SOURCES", "estimate", "lanes_for", "pack", "point"]

Array = NDArray[Any]

SOURCES = 64
"""Sources in one block, counted from source 0: another number changes the bits of the results."""

_INTEGERS = (
    "B", "H", "G", "T", "S", "D", "E", "lanes", "kind", "item", "reshaped", "left", "right",
    "offsets", "lengths", "sinks", "lse",
    "query", "query_b", "query_h", "query_t", "query_d",
    "key", "key_b", "key_h", "key_s", "key_d",
    "value", "value_b", "value_h", "value_s", "value_e",
    "mask", "mask_b", "mask_h", "mask_t", "mask_s",
    "bias", "bias_b", "bias_h", "bias_t", "bias_s", "bias_kind",
    "out", "out_b", "out_h", "out_t", "out_e",
    "heads", "queries", "num_heads", "num_queries",
    "counter", "stop", "workers",
)  # fmt: skip

CALL = np.dtype([(name, np.int64) for name in _INTEGERS] + [("scale", "f8"), ("softcap", "f8")])
"""Sizes and indices as in `mhakit.problem`; a bare array name is its address, 0 where absent."""


def lanes_for(rows: int, real: np.dtype[Any]) -> int:
    """Return how many targets a tile carries: one, two or four registers of them."""
    lanes = VECTOR_BYTES // real.itemsize
    return lanes * (1 if rows <= lanes else 2 if rows <= 2 * lanes else 4)


def estimate(problem: Problem) -> float:
    """Return how many nanoseconds of one core the problem takes at most, roughly."""
    B, H, T, D = problem.query.shape
    E = D if problem.value is None else problem.value.shape[3]
    seen = min(int(problem.key.shape[2]), problem.left + problem.right + 1)
    scores = float(B * H * T * seen)
    return float(scores * (0.02 * (D + E) + (20.0 if problem.score_mod is not None else 0.5)))


def pack(problem: Problem, *, rows: int) -> tuple[NDArray[Any], list[object]]:
    """Return the record of a problem and what must stay alive while a kernel reads it.

    ``rows`` is how many targets share a key/value head, which decides the lanes.
    """
    B, H, T, D = problem.query.shape
    G, S = problem.key.shape[1:3]
    calls = np.zeros(1, CALL)
    call = calls[0]
    offsets = np.ascontiguousarray(problem.query_offset)
    lengths = np.ascontiguousarray(problem.key_lengths)
    alive: list[object] = [problem, offsets, lengths]
    sizes = {"B": B, "H": H, "G": G, "T": T, "S": S, "D": D}
    for name, size in sizes.items():
        call[name] = size
    call["lanes"] = lanes_for(rows, problem.real)
    call["kind"] = KINDS[problem.query.dtype.name]
    call["item"] = problem.real.itemsize
    call["reshaped"] = bool(
        problem.softcap or problem.bias is not None or problem.score_mod is not None
    )
    call["left"], call["right"] = problem.left, problem.right
    call["offsets"], call["lengths"] = offsets.ctypes.data, lengths.ctypes.data
    call["scale"], call["softcap"] = problem.scale, problem.softcap
    point(call, "query", problem.query, "bhtd")
    point(call, "key", problem.key, "bhsd")
    if problem.value is not None:
        point(call, "value", problem.value, "bhse")
        call["E"] = problem.value.shape[3]
    if problem.mask is not None:
        point(call, "mask", problem.mask, "bhts")
    if problem.bias is not None:
        point(call, "bias", problem.bias, "bhts")
        call["bias_kind"] = KINDS[problem.bias.dtype.name]
    if problem.sinks is not None:
        sinks = np.ascontiguousarray(problem.sinks, dtype=problem.real)
        alive.append(sinks)
        call["sinks"] = sinks.ctypes.data
    return calls, alive


def point(call: Any, name: str, array: Array, axes: str) -> None:
    """Write an array's address and byte strides to the record."""
    call[name] = array.ctypes.data
    for axis, stride in zip(axes, array.strides, strict=True):
        call[f"{name}_{axis}"] = stride
