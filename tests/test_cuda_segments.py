"""Segments of sources on CUDA: how many there are, what they need, and how they are merged."""

import math

import numpy as np
import pytest

from material.budgets import budget_of
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.tiles import decoding_refusal
from mhakit.backends.cuda.tiles.call import ASKED
from mhakit.backends.cuda.tiles.memory import GlobalMemory
from mhakit.backends.cuda.tiles.merging import merge
from mhakit.backends.cuda.tiles.segments import (
    SEGMENT,
    Decoding,
    FmaDecoding,
    Merging,
    decoding_of,
    launches_of,
    parts_shape,
    warps_for,
)
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.errors import ParameterError
from mhakit.testing import Sizes, assert_within, draw

SIZES = Sizes(2, 4, 2, 3, 300, 64, 64)


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


def kernel(product, D, E):
    kind, dtype = {
        "mma": (Decoding, "bfloat16"), "3xtf32": (Decoding, "float32"),
        "fma": (FmaDecoding, "float32"),
    }[product]  # fmt: skip
    return kind(dtype, D, E, 16, warps_for(product, E), product=product)


@pytest.mark.parametrize("product", ["mma", "3xtf32", "fma"])
def test_bytes_enough_are_under_way_on_a_multiprocessor(product):
    """At 3.35 TB/s, 132 of them and 1 microsecond, 25 KB must be."""
    for D in (64, 128, 256):
        variant = kernel(product, D, D)
        assert variant.blocks * (variant.shared_bytes + 1024) <= 228 * 1024
        under_way = variant.blocks * (2 * variant.stages - 1) * variant.stage_bytes // 2
        assert under_way >= 2.5 * 25_000
    for D, E in ((32, 32), (80, 80), (96, 96), (256, 256), (32, 256), (256, 32)):
        assert kernel(product, D, E).shared_bytes <= 99 * 1024, "what every block has"


def test_what_decoding_does_not_take_has_a_reason(monkeypatch):
    def ask(sizes, dtype=np.float16, capability=(9, 0), **keywords):
        return decoding_refusal(as_problem(*draw(sizes, dtype), **keywords)[0], capability)

    assert ask(SIZES) is None
    assert ask(SIZES._replace(T=9)) == "T * H / G is 18, decoding takes 16 at most"
    assert ask(SIZES, np.float64).startswith("the dtype is float64, tile kernels take bfloat16")
    assert ask(SIZES._replace(D=48)) == (
        "D is 48, tile kernels of float16 take 32, 64, 80, 96, 128, 256"
    )
    wide = SIZES._replace(D=256, S=20)
    assert ask(wide, mask=np.ones(20, bool)) is None
    for asked in ("", "fma"):
        monkeypatch.setenv(ASKED, asked)
        for D, capability in ((256, (9, 0)), (256, (8, 9)), (256, (7, 0)), (128, (7, 5))):
            assert ask(SIZES._replace(D=D, E=256), np.float32, capability) is None
        assert ask(SIZES._replace(D=256, E=128), np.float32, (7, 5)) == (
            "D = 256 and E = 128 take 67584 bytes of shared memory, a block of compute capability "
            "7.5 has 65536"
        )
        assert ask(SIZES, np.float32, (6, 1)) == (
            "the device has compute capability 6.1, tile kernels of float32 need 7.0"
        )
        assert ask(SIZES._replace(D=48), np.float32) == (
            "D is 48, tile kernels of float32 take 32, 64, 80, 96, 128, 256"
        )


def test_what_is_asked_for_by_the_environment_is_what_decodes(monkeypatch):
    problem, _ = as_problem(*draw(SIZES, np.float32))
    monkeypatch.delenv(ASKED, raising=False)
    assert decoding_of(problem, (8, 0)).name == "decoding-float32-3xtf32-D64-16x32-2w"
    assert decoding_of(problem, (7, 5)).name == "decoding-float32-fma-D64-16x32-2w"
    monkeypatch.setenv(ASKED, "fma")
    assert decoding_of(problem, (8, 0)).name == "decoding-float32-fma-D64-16x32-2w"
    half, _ = as_problem(*draw(SIZES, np.float16))
    assert decoding_of(half, (8, 0)).product == "mma"
    monkeypatch.setenv(ASKED, "tf32")
    with pytest.raises(ParameterError, match="MHAKIT_CUDA_FLOAT32 must be fma or not set, got 'tf"):
        decoding_of(problem, (8, 0))


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
