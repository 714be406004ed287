"""Merge attention over disjoint sources: one work item is a few rows, each merged alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import records_at
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import end, read, take, write
from mhakit.backends.cpu.record import HEAD, UNSTARTED, address_of, records, where
from mhakit.backends.cpu.scratch import release, reserve
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import kind_of

__all__ = ["merge"]

_INTEGERS = (
    *HEAD, "parts", "B", "H", "T", "E", "kind", "lse_kind",
    "output", "output_b", "output_h", "output_t", "output_e", "lse", "lse_b", "lse_h", "lse_t",
)  # fmt: skip

PART = records(_INTEGERS)
"""An output and its lse as addresses and byte strides; letters as in `mhakit.problem`.

The first one is where the merge goes, so many ``parts`` follow it.
"""

SHARE = 8
"""Rows in one work item."""


def _enter(calls):
    """Be one worker."""
    records = records_at(calls, records_at(calls, 1)[0].parts + 1)
    _work(records, records[0].one)


_run = Worker(_enter, PART)


def merge(
    outputs: list[NDArray[Any]], lses: list[NDArray[Any]], out: NDArray[Any], out_lse: NDArray[Any]
) -> None:
    """Write the merge of attention over disjoint sources: weights are softmax over the parts."""
    B, H, T, E = out.shape
    numbers = (len(outputs), B, H, T, E, kind_of(out.dtype), kind_of(out_lse.dtype))
    calls = np.array(
        [
            (*UNSTARTED, *numbers, *where(output), address_of(lse), *lse.strides, 1)
            for output, lse in zip([out, *outputs], [out_lse, *lses], strict=True)
        ],
        PART[out_lse.dtype],
    )
    items, work = -(-B * H * T // SHARE), 4.0 * out.size * len(outputs)
    run_in_slices(_run.of(out_lse.dtype), calls, items, work, unknown=True)


@inlined
def _work(parts, real):
    """Take work items until none is left."""
    into = parts[0]
    rows = into.B * into.H * into.T
    room, _, (shares,) = reserve(real, (0, 0), ((1, parts.size),))
    if room == 0:
        return
    while True:
        item = take(parts)
        if item >= into.stop:
            break
        for row in range(item * SHARE, lesser((item + 1) * SHARE, rows)):
            b, h, t = row // (into.H * into.T), row // into.T % into.H, row % into.T
            _merge_row(parts, real, b, h, t, shares[0])
    release(room)
    end(parts)


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
        top = shares[i] if shares[i] > top else top
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
