"""Merge attention over disjoint sources: one work item is one batch and head, all its targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.launch import Kernel
from mhakit.backends.cpu.memory import read, write
from mhakit.backends.cpu.record import address_of, where
from mhakit.backends.cpu.storage import kind_of

__all__ = ["merge"]

_INTEGERS = (
    "B", "H", "T", "E", "kind", "lse_kind",
    "output", "output_b", "output_h", "output_t", "output_e", "lse", "lse_b", "lse_h", "lse_t",
)  # fmt: skip

PART = np.dtype([(name, np.int64) for name in _INTEGERS])
"""An output and its lse as addresses and byte strides; letters as in `mhakit.problem`."""


def _merge(parts, real):
    """Write parts[0], where the merge goes, from the parts after it."""
    for pair in prange(parts[0].B * parts[0].H):
        shares = np.empty(parts.size, dtype=type(real))
        for t in range(parts[0].T):
            _merge_row(parts, real, pair // parts[0].H, pair % parts[0].H, t, shares)


_run = Kernel(_merge)


def merge(
    outputs: list[NDArray[Any]], lses: list[NDArray[Any]], out: NDArray[Any], out_lse: NDArray[Any]
) -> None:
    """Write the merge of attention over disjoint sources: weights are softmax over the parts."""
    B, H, T, E = out.shape
    numbers = (B, H, T, E, kind_of(out.dtype), kind_of(out_lse.dtype))
    parts = np.array(
        [
            (*numbers, *where(output), address_of(lse), *lse.strides)
            for output, lse in zip([out, *outputs], [out_lse, *lses], strict=True)
        ],
        PART,
    )
    _run(parts, out_lse.dtype.type(1), work=1.0 * out.size * len(outputs))


@inlined
def _merge_row(parts, real, b, h, t, shares):
    """Write one row; a part that saw nothing, lse -inf, is left out whatever it holds."""
    cast = type(real)
    hidden = cast(-np.inf)
    into = parts[0]
    top = hidden
    for i in range(1, parts.size):
        part = parts[i]
        place = part.lse + b * part.lse_b + h * part.lse_h + t * part.lse_t
        shares[i] = read(real, part.lse_kind, place)
        if not shares[i] <= top:  # NaN counts, so that it comes through
            top = shares[i]
    base = cast(0) if top == hidden else top
    total = cast(0)
    for i in range(1, parts.size):
        # the mark of a part to leave out: no share is negative
        shares[i] = cast(-1) if shares[i] == hidden else np.exp(shares[i] - base)
        total += cast(0) if shares[i] == cast(-1) else shares[i]
    row = into.output + b * into.output_b + h * into.output_h + t * into.output_t
    for e in range(into.E):
        merged = cast(0)
        for i in range(1, parts.size):
            part = parts[i]
            if shares[i] != cast(-1):
                given = part.output + b * part.output_b + h * part.output_h + t * part.output_t
                merged += shares[i] / total * read(real, part.kind, given + e * part.output_e)
        write(into.kind, row + e * into.output_e, merged)
    lse = hidden if total == cast(0) else base + np.log(total)
    write(into.lse_kind, into.lse + b * into.lse_b + h * into.lse_h + t * into.lse_t, lse)
