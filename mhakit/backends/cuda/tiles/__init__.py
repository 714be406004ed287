"""Tile kernels: attention by tiles, from one source for the device and for NumPy twins.

``refusal`` says why a problem is not theirs, ``attend`` launches; ``decoding_refusal`` and
``decode`` do so for few targets. Neither this module nor what the twins run imports Numba.
"""

from __future__ import annotations

from typing import Any

from mhakit.backends.cuda.tiles.refusing import decoding_refusal, refusal
from mhakit.problem import Problem

__all__ = ["attend", "decode", "decoding_refusal", "refusal"]


def attend(problem: Problem, out: Any, lse: Any | None, *, stream: Any) -> None:
    """Launch attention on a stream of Numba's; 0 is the default one.

    All arrays lie on the device, ``query_offset`` and ``key_lengths`` as int64 and ``sinks`` as
    float32 too; `refusal` gave None. ``out``, (B, H, T, E), has rows as `refusal` asks them of
    query; ``lse``, float32 (B, H, T), is contiguous.
    """
    from mhakit.backends.cuda.tiles.launching import launch

    launch(problem, out, lse, stream)


def decode(problem: Problem, out: Any, lse: Any | None, parts: Any | None, *, stream: Any) -> None:
    """Do as `attend` for few targets, where `decoding_refusal` gave None.

    ``parts`` is float32 scratch on the device, contiguous, of the shape that
    `mhakit.backends.cuda.tiles.segments.parts_shape` says.
    """
    from mhakit.backends.cuda.tiles.launching import launch_decoding

    launch_decoding(problem, out, lse, parts, stream)
