"""Fused attention: one block of threads is one tile of targets of one head, all its sources.

Online softmax (Milakov and Gimelshein, arXiv:1805.02867) over blocks of sources; nothing of size
T * S is made. Where E is wider than a block takes, blocks share it and each repeats the scores.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda import blocks
from mhakit.backends.cuda.blocks import (
    HIDDEN,
    Variant,
    exponential,
    first_visible,
    loader,
    past_visible,
    scorer,
)
from mhakit.backends.cuda.calling import Call
from mhakit.backends.cuda.storage import reader, writer
from mhakit.problem import Problem

__all__ = ["attend", "attention_kernel", "count_tiles", "describe"]


def attend(problem: Problem, out: Any, *, wants_lse: bool = True) -> Any:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), if wanted."""
    assert problem.value is not None
    B, H, T, _ = problem.query.shape
    E = problem.value.shape[3]
    with Call(problem.query, "attention") as call:
        lse = call.empty((B, H, T), problem.real, "lse") if wants_lse else None
        variant = Variant.of(problem)
        TARGETS, _, COLUMNS, _, WIDTH = variant.shape
        sinks = problem.sinks
        call.run(
            attention_kernel(variant, None if sinks is None else sinks.dtype.name, wants_lse),
            B * H * -(-T // TARGETS) * -(-E // WIDTH),
            (COLUMNS, TARGETS),
            *call.scoring_arguments(problem),
            call.given(problem.value, "value"),
            call.given(sinks, "sinks", (problem.real, 1)),
            call.written(out, "output"),
            call.written(lse, "lse", (problem.real, 3)),
            score_mod=problem.score_mod,
        )
    return lse


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, but for the reason."""
    shape = blocks.SHAPE
    tile = shape.targets, shape.sources
    return {
        "kernel": "cuda.attention, plain blocks",
        "order": f"blocks of {shape.sources} sources, in order",
        "threads": shape.columns * shape.targets,
        "lanes": 1,
        "tile": tile,
        **count_tiles(problem, tile, hides_anywhere=problem.mask is not None),
        "scratch_bytes": 16 * problem.query.shape[0],
    }


def count_tiles(problem: Problem, tile: tuple[int, int], *, hides_anywhere: bool) -> dict[str, int]:
    """Return how many tiles show everything, something, nothing: as a kernel goes through them."""
    H, T, S = *problem.query.shape[1:3], problem.key.shape[2]
    TARGETS, SOURCES = tile
    first_t = np.arange(0, T, TARGETS)
    last_t = np.minimum(first_t + TARGETS, T) - 1
    block = np.arange(0, S, SOURCES)
    full = touched = 0
    for offset, length in zip(problem.query_offset, problem.key_lengths, strict=True):
        low, high = (np.maximum(t + offset - problem.left, 0)[:, None] for t in (first_t, last_t))
        short, long = (
            np.clip(t + offset + problem.right + 1, 0, length)[:, None] for t in (first_t, last_t)
        )
        touches = (block + SOURCES > low) & (block < long)
        whole = touches & (block >= high) & (np.minimum(block + SOURCES, S) <= short)
        touched += int(touches.sum())
        full += 0 if hides_anywhere else int(whole.sum())
    tiles = len(problem.query_offset) * len(first_t) * len(block)
    return {
        "tiles_full": H * full,
        "tiles_border": H * (touched - full),
        "tiles_skipped": H * (tiles - touched),
    }


@lru_cache(maxsize=64)
def attention_kernel(variant: Variant, sinks_dtype: str | None, wants_lse: bool) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, SOURCES, COLUMNS, DEPTH, WIDTH = variant.shape
    real, score_block, exp = variant.real, scorer(variant), exponential(variant.real)
    load, store = loader(variant.dtype, real, variant.shape), writer(variant.dtype)
    has_sinks, read_sink = sinks_dtype is not None, reader(sinks_dtype or variant.dtype, real)
    query_tile, key_tile = (TARGETS, DEPTH + 1), (SOURCES, DEPTH + 1)
    score_tile, value_tile, sum_tile = (TARGETS, SOURCES + 1), (SOURCES, WIDTH), (TARGETS, WIDTH)
    nothing, zero, one, hidden = real(-np.inf), real(0), real(1), real(HIDDEN)

    def attention(
        query, key, mask, bias, offsets, lengths, left, right, scale, softcap, score_args, value,
        sinks, out, lse,
    ):  # fmt: skip
        """Write output (B, H, T, E) and lse (B, H, T)."""
        B, H, T, E = out.shape
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        queries = cuda.shared.array(query_tile, real)
        keys = cuda.shared.array(key_tile, real)
        scores = cuda.shared.array(score_tile, real)
        values = cuda.shared.array(value_tile, real)
        sums = cuda.shared.array(sum_tile, real)
        tiles, parts = (T + TARGETS - 1) // TARGETS, (E + WIDTH - 1) // WIDTH
        for item in range(cuda.blockIdx.x, B * H * tiles * parts, cuda.gridDim.x):
            first_e = item % parts * WIDTH
            first_t = item // parts % tiles * TARGETS
            h = item // (parts * tiles) % H
            b = item // (parts * tiles * H)
            width = min(WIDTH, E - first_e)
            g = h // (H // value.shape[1])

            # where this thread's target sits, and what it and its whole tile see
            last_t = min(first_t + TARGETS, T) - 1
            t = min(first_t + row, last_t)  # a spare row repeats the last target
            position, offset, length = t + offsets[b], offsets[b], lengths[b]
            first, past = first_visible(position, left), past_visible(position, right, length)
            begin = first_visible(first_t + offset, left) // SOURCES * SOURCES
            stop = past_visible(last_t + offset, right, length)

            top, total = nothing, zero
            if has_sinks:
                top = read_sink(sinks[h])
                total = zero if top == nothing else one
            for e in range(column, width, COLUMNS):
                sums[row, e] = zero
            for source in range(begin, stop, SOURCES):
                count = min(SOURCES, stop - source)
                score_block(
                    query, key, mask, bias, b, h, t, position, first, past, source, count, scale,
                    softcap, score_args, queries, keys, scores,
                )  # fmt: skip
                load(value, b, g, source, count, first_e, width, values)
                cuda.syncthreads()

                # the largest score yet, and by how much what was summed under the last one shrinks
                largest = top
                for s in range(count):
                    if scores[row, s] > largest:
                        largest = scores[row, s]
                base = zero if largest == nothing else largest
                carry = exp(top - base)
                top = largest
                cuda.syncthreads()  # until all threads of the row have read its scores

                for s in range(column, count, COLUMNS):
                    score = scores[row, s]
                    scores[row, s] = hidden if score == nothing else exp(score - base)
                cuda.syncthreads()
                part = zero
                for s in range(count):
                    if scores[row, s] != hidden:
                        part += scores[row, s]
                total = total * carry + part
                for e in range(column, width, COLUMNS):
                    part = zero
                    for s in range(count):
                        if scores[row, s] != hidden:  # 0 * NaN is NaN: it is not multiplied at all
                            part += scores[row, s] * values[s, e]
                    sums[row, e] = sums[row, e] * carry + part

            if first_t + row <= last_t:
                for e in range(column, width, COLUMNS):
                    result = zero if total == zero else sums[row, e] / total
                    out[b, h, t, first_e + e] = store(result)
                if wants_lse and first_e == 0 and column == 0:
                    lse[b, h, t] = nothing if total == zero else top + real(math.log(total))

    return attention
