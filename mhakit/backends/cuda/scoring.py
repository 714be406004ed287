"""Scores: one block of threads is one tile of targets of one head and one block of sources."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from mhakit.backends.cuda.blocks import Variant, first_visible, past_visible, scorer
from mhakit.backends.cuda.calling import Call
from mhakit.problem import Problem

__all__ = ["score", "scoring_kernel"]


def score(problem: Problem, out: Any) -> None:
    """Write the scores as softmax would receive them, (B, H, T, S), to ``out``."""
    B, H, T, S = out.shape
    variant = Variant.of(problem)
    TARGETS, SOURCES, COLUMNS, *_ = variant.shape
    with Call(problem.query, "attention_scores") as call:
        call.run(
            scoring_kernel(variant),
            B * H * -(-T // TARGETS) * -(-S // SOURCES),
            (COLUMNS, TARGETS),
            *call.scoring_arguments(problem),
            call.written(out, "scores"),
            score_mod=problem.score_mod,
        )


@lru_cache(maxsize=64)
def scoring_kernel(variant: Variant) -> Any:
    """Return the kernel as a plain function, not yet compiled."""
    TARGETS, SOURCES, COLUMNS, DEPTH, _ = variant.shape
    real, score_block = variant.real, scorer(variant)
    query_tile, key_tile = (TARGETS, DEPTH + 1), (SOURCES, DEPTH + 1)
    score_tile = (TARGETS, SOURCES + 1)

    def attention_scores(
        query, key, mask, bias, offsets, lengths, left, right, scale, softcap, score_args, out
    ):
        """Write scores (B, H, T, S)."""
        B, H, T, S = out.shape
        column, row = cuda.threadIdx.x, cuda.threadIdx.y
        queries = cuda.shared.array(query_tile, real)
        keys = cuda.shared.array(key_tile, real)
        scores = cuda.shared.array(score_tile, real)
        tiles, blocks = (T + TARGETS - 1) // TARGETS, (S + SOURCES - 1) // SOURCES
        for item in range(cuda.blockIdx.x, B * H * tiles * blocks, cuda.gridDim.x):
            source = item % blocks * SOURCES
            first_t = item // blocks % tiles * TARGETS
            h = item // (blocks * tiles) % H
            b = item // (blocks * tiles * H)
            count = min(SOURCES, S - source)
            last_t = min(first_t + TARGETS, T) - 1
            t = min(first_t + row, last_t)  # a spare row repeats the last target
            position = t + offsets[b]
            first, past = first_visible(position, left), past_visible(position, right, lengths[b])
            score_block(
                query, key, mask, bias, b, h, t, position, first, past, source, count, scale,
                softcap, score_args, queries, keys, scores,
            )  # fmt: skip
            if first_t + row <= last_t:
                for s in range(column, count, COLUMNS):
                    out[b, h, t, source + s] = scores[row, s]

    return attention_scores
