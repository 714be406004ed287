"""What the kernels share: the shape of a block's work, and the scores of one block of sources.

A block is TARGETS rows of COLUMNS threads. Row i of threads keeps target i of the tile; its
threads share out sources, widths and the axis that is summed over, each taking every COLUMNS-th.
Sources are taken in blocks of SOURCES, counted from source 0, so that a row's sums never depend
on what else is in its tile. Every shared array has a line of its own: by its line the simulator
knows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from mhakit.backends import steps
from mhakit.backends.cuda.storage import device, reader
from mhakit.backends.user_functions import body_of, refuse_raising
from mhakit.problem import Problem

__all__ = [
    "HIDDEN",
    "SHAPE",
    "Shape",
    "Variant",
    "exponential",
    "first_visible",
    "loader",
    "past_visible",
    "scorer",
]


class Shape(NamedTuple):
    """How much one block takes at a time; a shared tile is one number wider than it must be.

    The odd width keeps threads that walk down a column in different banks of shared memory.
    """

    targets: int
    sources: int
    columns: int
    depth: int
    """of D, or of whatever a product sums over"""
    width: int
    """of E, or of M"""


SHAPE = Shape(targets=16, sources=32, columns=8, depth=32, width=64)
"""41 KB of shared memory in float64, under the 48 KB that every chip has; 128 threads."""


class Variant(NamedTuple):
    """What a kernel of scores is compiled for; the rest it is told when it runs."""

    dtype: str
    real: Any
    bias: str | None
    """its dtype"""
    masked: bool
    capped: bool
    score_mod: Callable[..., Any] | None
    shape: Shape

    @classmethod
    def of(cls, problem: Problem) -> Variant:
        """Return the variant that a problem needs."""
        return cls(
            problem.query.dtype.name,
            problem.real.type,
            None if problem.bias is None else problem.bias.dtype.name,
            problem.mask is not None,
            problem.softcap != 0,
            None if problem.score_mod is None else body_of(problem.score_mod),
            SHAPE,
        )


HIDDEN = -1
"""The mark of a source to leave out, in place of its weight: no weight is negative."""

first_visible = device(steps.first_visible)
past_visible = device(steps.past_visible)


@cache
def exponential(real: Any) -> Any:
    """Return exp in the computation dtype."""
    return device(lambda number: real(math.exp(number)))


@lru_cache(maxsize=64)
def scorer(variant: Variant) -> Any:
    """Return the device function that fills a tile with the scores of one block of sources."""
    TARGETS, _, COLUMNS, DEPTH, _ = variant.shape
    real, masked, capped = variant.real, variant.masked, variant.capped
    biased, modified = variant.bias is not None, variant.score_mod is not None
    read = reader(variant.dtype, real)
    read_bias = reader(variant.bias or variant.dtype, real)
    score_mod = read
    if variant.score_mod is not None:
        refuse_raising(variant.score_mod)
        score_mod = device(variant.score_mod)
    hidden, zero = real(-np.inf), real(0)

    def score_block(
        query, key, mask, bias, b, h, t, position, first, past, source, count, scale, softcap,
        score_args, queries, keys, scores,
    ):  # fmt: skip
        """Write the scores of target t with sources [source, source + count) to its row.

        It sees [first, past) of them; what it does not see is -inf, whatever its key holds. Every
        thread of the block comes here, and whoever reads another's scores waits first.
        """
        D = query.shape[3]
        g = h // (query.shape[1] // key.shape[1])
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        cuda.syncthreads()  # until the tiles of the block before are read
        for s in range(column, count, COLUMNS):
            scores[row, s] = zero
        for begin in range(0, D, DEPTH):
            depth = min(DEPTH, D - begin)
            for d in range(column, depth, COLUMNS):
                queries[row, d] = read(query[b, h, t, begin + d])
                for s in range(row, count, TARGETS):
                    keys[s, d] = read(key[b, g, source + s, begin + d])
            cuda.syncthreads()
            for s in range(column, count, COLUMNS):
                part = zero
                for d in range(depth):
                    part += queries[row, d] * keys[s, d]
                scores[row, s] += part
            cuda.syncthreads()
        for s in range(column, count, COLUMNS):
            at = source + s
            score = hidden
            visible = first <= at and at < past
            if masked and visible:
                visible = mask[b, h, t, at]
            if visible:
                score = scores[row, s] * scale
                if capped:
                    score = softcap * real(math.tanh(score / softcap))
                if biased:
                    added = read_bias(bias[b, h, t, at])
                    # -inf hides, even from a score that is inf or NaN
                    score = hidden if added == hidden else score + added
                    visible = added != hidden
                if modified and visible:
                    score = real(score_mod(score, b, h, position, at, *score_args))
            scores[row, s] = score

    return device(score_block)


@cache
def loader(dtype: str, real: Any, shape: Shape) -> Any:
    """Return the device function that brings a block of values to shared memory."""
    read, TARGETS, COLUMNS = reader(dtype, real), shape.targets, shape.columns

    def load(value, b, g, source, count, first_e, width, values):
        """Write values of sources [source, source + count) and E [first_e, first_e + width)."""
        for s in range(cuda.threadIdx.y, count, TARGETS):
            for e in range(cuda.threadIdx.x, width, COLUMNS):
                values[s, e] = read(value[b, g, source + s, first_e + e])

    return device(load)
