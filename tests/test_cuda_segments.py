"""Segments of sources on CUDA: how many there are, what they need, and how they are merged."""

import math

import numpy as np
import pytest

from material.budgets import budget_of
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.tiles.memory import GlobalMemory
from mhakit.backends.cuda.tiles.merging import merge
from mhakit.backends.cuda.tiles.segments import (
    SEGMENT,
    Decoding,
    Merging,
    decoding_of,
    launches_of,
    parts_shape,
)
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import assert_within


def test_scratch_is_small_and_one_segment_needs_none():
    def problem_of(sources):
        view = np.broadcast_to(np.float16(0), (1, 8, sources, 128))
        return as_problem(np.zeros((1, 32, 1, 128), np.float16), view, view)[0]

    problem = problem_of(SEGMENT)
    assert parts_shape(problem) is None
    assert [blocks for _, blocks in launches_of(problem, decoding_of(problem))] == [8]
    problem = problem_of(65536)
    assert 4 * math.prod(parts_shape(problem)) < 0.02 * 2 * 65536 * 8 * 128 * 2
    launches = launches_of(problem, decoding_of(problem))
    assert [blocks for _, blocks in launches] == [8 * 65536 // SEGMENT, 32 * 128 // 16]


def test_three_blocks_and_bytes_enough_are_under_way_on_a_multiprocessor():
    """At 3.35 TB/s, 132 of them and 1 microsecond, 25 KB must be."""
    for D in (64, 128):
        variant = Decoding("bfloat16", D, D, 16, 4)
        assert variant.blocks * (variant.shared_bytes + 1024) <= 228 * 1024
        under_way = variant.blocks * (2 * variant.stages - 1) * variant.stage_bytes // 2
        assert under_way >= 4 * 25_000
    for D, E in ((32, 32), (80, 80), (96, 96), (256, 256), (32, 256), (256, 32)):
        assert Decoding("float16", D, E, 16, 4).shared_bytes <= 99 * 1024, "what every block has"


def merged(parts, first, past, sinks=None):
    """Run the kernel that merges on the parts of one row, (segments, E + 4)."""
    segments, width = parts.shape[0], parts.shape[1] - 4
    memory, out, lse = GlobalMemory(), np.zeros(width, np.float16), np.zeros(1, np.float32)
    fields = dict.fromkeys(("out_b", "out_h", "out_t"), np.int64(0)) | {
        "parts": np.int64(memory.add(parts)), "out": np.int64(memory.add(out, output=True)),
        "lse": np.int64(memory.add(lse, output=True)), "H": np.int64(1), "T": np.int64(1),
        "S": np.int64(segments * SEGMENT), "left": np.int64(-first), "right": np.int64(past - 1),
        "offsets": np.int64(memory.add(np.zeros(1, np.int64))),
        "lengths": np.int64(memory.add(np.array([segments * SEGMENT]))),
        "unit": np.float32(1), "factor": np.float32(1.4426950408889634),
        "sinks": np.int64(0 if sinks is None else memory.add(sinks)),
    }  # fmt: skip
    variant = Merging("float16", width)
    for block in range(width // 16):
        twin = Twin("float16", variant.threads, block, variant.shared_bytes, memory, fields)
        merge(twin, variant)
    memory.check_written()
    return out, lse


@pytest.mark.parametrize(("first", "past"), [(0, 70_000), (3 * SEGMENT - 1, 300 * SEGMENT + 1)])
def test_more_segments_than_threads_are_merged_and_those_unseen_left_out(first, past):
    segments, width = 310, 32
    rng = np.random.default_rng(5)
    parts = rng.standard_normal((segments, width + 4)).astype(np.float32)
    parts[:, width] *= 9
    parts[:, width + 1] = 1 + rng.random(segments)
    begin, stop = first // SEGMENT, -(-past // SEGMENT)
    parts[stop - 2, width] = -np.inf  # one that nobody saw
    parts[stop - 2, :width] = parts[stop - 2, width + 1] = 0
    parts[:begin], parts[stop:] = np.nan, np.nan
    seen = parts[begin:stop]
    top = seen[:, width].max()
    for sinks in (None, np.array([top + 1], np.float32)):

        def total(real, sinks=sinks):
            sum_ = np.exp(real(seen[:, width] - top)) @ real(seen[:, width + 1])
            return sum_ if sinks is None else sum_ + np.exp(real(sinks[0] - top))

        def row(real, total=total):
            return np.exp(real(seen[:, width] - top)) @ real(seen[:, :width]) / total(real)

        def log(real, total=total):
            return np.atleast_1d(top + np.log(total(real)))

        output, lse = merged(parts, first, past, sinks)
        assert_within(output, budget_of(row, output.dtype))
        assert_within(lse, budget_of(log, lse.dtype))
