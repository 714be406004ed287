"""Tile kernels: attention on tensor cores, from one source for the device and for NumPy twins.

``refusal`` says why a problem is not theirs, ``attend`` launches. Neither this module nor what
the twins run imports Numba.
"""

from __future__ import annotations

from typing import Any

from mhakit.backends.cuda.tiles.refusing import refusal
from mhakit.problem import Problem

__all__ = ["attend", "refusal"]


def attend(problem: Problem, out: Any, lse: Any | None, *, stream: Any) -> None:
    """Launch attention on a stream of Numba's; 0 is the default one.

    All arrays lie on the device, ``query_offset`` and ``key_lengths`` as int64 and ``sinks`` as
    float32 too; `refusal` gave None. ``out``, (B, H, T, E), has rows as `refusal` asks them of
    query; ``lse``, float32 (B, H, T), is contiguous.
    """
    from mhakit.backends.cuda.tiles.launching import launch

    launch(problem, out, lse, stream)
