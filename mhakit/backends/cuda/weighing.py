"""Weights of chosen heads and targets: one block of threads is one tile of chosen targets.

Two passes over the scores, the first for each row's top and sum, the second for the weights: no
score is kept, so memory is that of the result.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda.blocks import (
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

__all__ = ["weigh", "weighing_kernel"]


def weigh(
    problem: Problem,
    heads: np.ndarray[Any, np.dtype[np.int64]],
    queries: np.ndarray[Any, np.dtype[np.int64]],
    out: Any,
    attended: Any = None,
) -> None:
    """Write the weights of the chosen heads and targets, (B, len, len, S), to ``out``.

    Where ``attended``, (B, len, len, E), is given, write what they sum the values to, too.
    """
    B = problem.query.shape[0]
    sinks, value = problem.sinks, None if attended is None else problem.value
    variant = Variant.of(problem)
    TARGETS, _, COLUMNS, _, WIDTH = variant.shape
    parts = 1 if attended is None else -(-attended.shape[3] // WIDTH)
    with Call(problem.query, "attention_weights") as call:
        call.run(
            weighing_kernel(
                variant, None if sinks is None else sinks.dtype.name, attended is not None
            ),
            B * len(heads) * -(-len(queries) // TARGETS) * parts,
            (COLUMNS, TARGETS),
            *call.scoring_arguments(problem),
            call.given(value, "value", (problem.query.dtype, 4)),
            call.given(sinks, "sinks", (problem.real, 1)),
            call.given(np.asarray(heads, np.int64), "heads"),
            call.given(np.asarray(queries, np.int64), "queries"),
            call.written(out, "weights"),
            call.written(attended, "output", (problem.query.dtype, 4)),
            score_mod=problem.score_mod,
        )


@lru_cache(maxsize=64)
def weighing_kernel(variant: Variant, sinks_dtype: str | None, attends: bool) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, SOURCES, COLUMNS, DEPTH, WIDTH = variant.shape
    real, score_block, exp = variant.real, scorer(variant), exponential(variant.real)
    load, store = loader(variant.dtype, real, variant.shape), writer(variant.dtype)
    has_sinks, read_sink = sinks_dtype is not None, reader(sinks_dtype or variant.dtype, real)
    query_tile, key_tile = (TARGETS, DEPTH + 1), (SOURCES, DEPTH + 1)
    score_tile = (TARGETS, SOURCES + 1)
    value_tile, sum_tile = ((SOURCES, WIDTH), (TARGETS, WIDTH)) if attends else ((1, 1), (1, 1))
    nothing, zero, one = real(-np.inf), real(0), real(1)

    def attention_weights(
        query, key, mask, bias, offsets, lengths, left, right, scale, softcap, score_args, value,
        sinks, heads, chosen, out, attended,
    ):  # fmt: skip
        """Write weights (B, len, len, S) and sums (B, len, len, E)."""
        B, count_h, count_t, S = out.shape
        H = query.shape[1]
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        queries = cuda.shared.array(query_tile, real)
        keys = cuda.shared.array(key_tile, real)
        scores = cuda.shared.array(score_tile, real)
        values = cuda.shared.array(value_tile, real)
        sums = cuda.shared.array(sum_tile, real)
        E = attended.shape[3] if attends else 1
        tiles, parts = (count_t + TARGETS - 1) // TARGETS, (E + WIDTH - 1) // WIDTH
        for item in range(cuda.blockIdx.x, B * count_h * tiles * parts, cuda.gridDim.x):
            first_e = item % parts * WIDTH
            first_i = item // parts % tiles * TARGETS
            j = item // (parts * tiles) % count_h
            b = item // (parts * tiles * count_h)
            last_i = min(first_i + TARGETS, count_t) - 1
            i = min(first_i + row, last_i)  # a spare row repeats the last target
            h, t = heads[j], chosen[i]
            g, width = h // (H // key.shape[1]), min(WIDTH, E - first_e)
            position = t + offsets[b]
            first, past = first_visible(position, left), past_visible(position, right, lengths[b])

            # pass 1: the top of each row and its sum; targets come in any order, so all sources
            top, total = nothing, zero
            if has_sinks:
                top = read_sink(sinks[h])
                total = zero if top == nothing else one
            for source in range(0, S, SOURCES):
                count = min(SOURCES, S - source)
                score_block(
                    query, key, mask, bias, b, h, t, position, first, past, source, count, scale,
                    softcap, score_args, queries, keys, scores,
                )  # fmt: skip
                cuda.syncthreads()
                largest = top
                for s in range(count):
                    if scores[row, s] > largest:
                        largest = scores[row, s]
                base = zero if largest == nothing else largest
                part = zero
                for s in range(count):
                    if scores[row, s] != nothing:
                        part += exp(scores[row, s] - base)
                total = total * exp(top - base) + part
                top = largest

            # pass 2: the same scores again, and what each weighs
            base = zero if top == nothing else top
            written = first_i + row <= last_i
            if attends:
                for e in range(column, width, COLUMNS):
                    sums[row, e] = zero
            for source in range(0, S, SOURCES):
                count = min(SOURCES, S - source)
                score_block(
                    query, key, mask, bias, b, h, t, position, first, past, source, count, scale,
                    softcap, score_args, queries, keys, scores,
                )  # fmt: skip
                if attends:
                    load(value, b, g, source, count, first_e, width, values)
                cuda.syncthreads()
                if written and first_e == 0:
                    for s in range(column, count, COLUMNS):
                        score = scores[row, s]
                        weight = zero if score == nothing else exp(score - base) / total
                        out[b, j, i, source + s] = store(weight)
                if attends:
                    for e in range(column, width, COLUMNS):
                        part = zero
                        for s in range(count):
                            score = scores[row, s]
                            if score != nothing:  # 0 * NaN is NaN: it is not multiplied at all
                                part += exp(score - base) * values[s, e]
                        sums[row, e] += part
            if attends and written:
                for e in range(column, width, COLUMNS):
                    result = zero if total == zero else sums[row, e] / total
                    attended[b, j, i, first_e + e] = store(result)

    return attention_weights
