"""A caller's scalar function: compiled so that a kernel can inline it, and called on a tile."""

from __future__ import annotations

import numpy as np

from mhakit.backends.cpu.arrays import numbers_at
from mhakit.backends.cpu.flags import inlined, optimized
from mhakit.backends.cpu.memory import NEAR, address, read_near
from mhakit.backends.user_compiling import UserCompiler

__all__ = ["compiled", "modify"]

compiled = UserCompiler(optimized)


@inlined
def modify(b, heads, positions, room, source, rows, scores, score_mod, score_args):
    """Change scores, (sources, lanes), in place; ``heads`` and ``positions`` are the lanes'.

    ``room`` is a line of as many int64 that nobody needs.
    """
    lanes, h = heads.size, heads[0]
    places = numbers_at(np.int32(0), address(room), lanes + 1)  # the lanes', and the source's
    vectors = source + rows < NEAR
    for lane in range(lanes):
        p = positions[lane]
        vectors = vectors and heads[lane] == h and -NEAR <= p < NEAR
        places[lane] = p
    if vectors:  # what is indexed by one head is read, not gathered, and 32 bits become floats
        for i in range(rows):
            places[lanes] = source + i
            s = read_near(places, lanes)
            for lane in range(lanes):
                p = read_near(places, lane)
                scores[i, lane] = _modified(scores[i, lane], b, h, p, s, score_mod, score_args)
    else:
        for i in range(rows):
            for lane in range(lanes):
                scores[i, lane] = _modified(
                    scores[i, lane], b, heads[lane], positions[lane], source + i, score_mod,
                    score_args,
                )  # fmt: skip


@optimized
def _modified(score, b, h, p, s, score_mod, score_args):
    """Return what a user's function makes of one score; a hidden one stays hidden."""
    changed = type(score)(score_mod(score, b, h, p, s, *score_args))
    return score if score == type(score)(-np.inf) else changed
