"""Attention of few targets by the tile kernels that read each key and value once."""

from __future__ import annotations

import math
from typing import Any

from mhakit.backends.cuda import attention, tiled_attention, tiles
from mhakit.backends.cuda.tiles.segments import (
    ROWS,
    SEGMENT,
    decoding_of,
    parts_shape,
    rows_of,
    segments_of,
)
from mhakit.problem import Problem

__all__ = ["attend", "describe", "reason", "refusal"]


def attend(problem: Problem, out: Any, *, wants_lse: bool = True) -> Any:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), if wanted."""
    scratch = parts_shape(problem)
    return tiled_attention.run(problem, out, _launch, scratch, wants_lse=wants_lse)


def _launch(problem: Problem, out: Any, lse: Any, parts: Any = None, *, stream: Any) -> None:
    tiles.decode(problem, out, lse, parts, stream=stream)


def refusal(problem: Problem, capability: tuple[int, int], out: Any = None) -> str | None:
    """Return why `attend` does not take a problem, as it will lie on the device."""
    return tiled_attention.refusal(problem, capability, out, judge=tiles.decoding_refusal)


def reason(problem: Problem) -> str:
    """Return why it is decoding that takes a problem, and how it multiplies."""
    return (
        f"T * H / G is {rows_of(problem)}, all rows that share a key head fit one tile"
        f"{tiled_attention.way_to_multiply(problem)}: each key and value is read once"
    )


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, but for the reason."""
    variant = decoding_of(problem, tiled_attention.capability_of(problem))
    parts = parts_shape(problem)
    B, H = problem.query.shape[:2]
    G, S = problem.key.shape[1:3]
    tile, segments = (ROWS, variant.sources), segments_of(S)
    order = f"1 segment of {SEGMENT} sources, in order"
    if segments > 1:
        order = f"{segments} segments of {SEGMENT} sources, each in order, then merged"
    counts = attention.count_tiles(problem, tile, hides_anywhere=variant.hides_anywhere)
    return {
        "kernel": f"cuda.decoding, tiles by {tiled_attention.means_of(variant)}, {variant.name}",
        "order": order,
        "threads": variant.threads,
        "lanes": 1,
        "tile": tile,
        # one tile of rows takes all heads that share a key head
        **{name: count * G // H for name, count in counts.items()},
        "scratch_bytes": 16 * B + (0 if parts is None else 4 * math.prod(parts)),
    }
