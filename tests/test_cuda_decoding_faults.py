"""Wrong decoding kernels: each is planted, and what checks the kernels must find it."""

import os
from contextlib import suppress

import numpy as np
import pytest

from material.twins import KINDS, TRANSPOSED, is_within_budget, leaving_out, vote_without_a_barrier
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import decoding, merging, shares
from mhakit.backends.cuda.tiles.call import ASKED
from mhakit.backends.cuda.tiles.memory import Fault
from mhakit.backends.cuda.tiles.segments import SEGMENT, Decoding, decoding_of
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import Sizes, draw

WIDTHS = {2: 128, 4: 64}
"""By the size of a number, so that two tiles fit the ring."""
KEYWORDS = {"window": (161, 0), "query_offset": SEGMENT + 32, "key_lengths": [SEGMENT + 35]}
"""Targets see from sources 127, 128 and 129 on, so that two tiles hide something there."""


@pytest.fixture(params=["bfloat16"])
def dtype(request, monkeypatch):
    """What is decoded, and of float32 each way to multiply."""
    kind, asked = KINDS[request.param]
    monkeypatch.setenv(ASKED, asked)
    return kind


of_each_product = pytest.mark.parametrize("dtype", ["bfloat16", "3xtf32", "fma"], indirect=True)


def draw_poisoned(dtype):
    """Return arrays with a NaN in sight of some targets, so that every path of the kernel runs."""
    width = WIDTHS[dtype.itemsize]
    sizes = Sizes(1, 4, 2, 3, SEGMENT + 40, width, width)
    query, key, value = draw(sizes, dtype, seed=4)
    query *= 3  # a row's tops differ between warps and segments
    value[0, 1, 128, 3] = value[0, 1, SEGMENT + 34, 5] = np.nan
    return query, key, value


def run(dtype, machine=Twin, keywords=KEYWORDS):
    problem, _ = as_problem(*draw_poisoned(dtype), **keywords)
    return run_twin(problem, decoding_of(problem), machine=machine)


def is_right(dtype, machine=Twin, keywords=KEYWORDS):
    return is_within_budget(run(dtype, machine, keywords), draw_poisoned(dtype), keywords)


@of_each_product
def test_the_kernels_that_mutants_are_made_of_are_right(dtype):
    assert is_right(dtype)


@of_each_product
def test_a_missing_barrier_is_found_wherever_it_is(dtype):
    machine = leaving_out("barrier")
    run(dtype, machine)
    last = max(machine.counts) - 1
    assert last >= 3 + 2 + 1, "one or two for each tile, one for specials, two around the parts"
    # where warps leave their parts, sources were read, in blocks that ended at another stage
    from_last = [lambda block, call, i=i: call == machine.counts[block] - i for i in (1, 2)]
    for which in [*range(last - 1), *from_last]:
        with pytest.raises(Fault, match="no barrier separates"):
            run(dtype, leaving_out("barrier", which))


@of_each_product
def test_a_missing_barrier_of_a_vote_is_found(dtype):
    machine = leaving_out("barrier_any")
    run(dtype, machine)
    # one for each tile that hides, and a special's, of which fma asks nobody
    by_fma = os.environ[ASKED] == "fma"
    assert max(machine.counts) == 2 + (0 if by_fma else WIDTHS[dtype.itemsize] // 16)
    for which in (0, 1):
        with pytest.raises(Fault, match="no barrier separates"):
            run(dtype, leaving_out("barrier_any", which, vote_without_a_barrier))


@of_each_product
def test_a_copy_that_was_not_waited_for_is_found(dtype):
    for of_values in (0, 1):
        with pytest.raises(Fault, match="not waited for"):
            run(dtype, leaving_out("wait", lambda block, call, i=of_values: call % 2 == i))


@of_each_product
def test_a_wait_for_one_group_too_few_is_found(dtype):
    class Hasty(Twin):
        def wait(self, groups):
            super().wait(groups + 1 if groups else 0)

    with pytest.raises(Fault, match="not waited for"):
        run(dtype, Hasty)


@of_each_product
@pytest.mark.parametrize(("begin", "stop"), [(1, 0), (0, 1), (0, -1)])
def test_a_segment_that_ends_or_begins_elsewhere_is_found(begin, stop, monkeypatch, dtype):
    right = decoding._tiles_of

    def tiles_of(*args):
        first, past = right(*args)
        return first + begin, past + stop

    monkeypatch.setattr(decoding, "_tiles_of", tiles_of)
    with suppress(Fault):
        assert not is_right(dtype)


@of_each_product
@pytest.mark.parametrize("by", [-1, 1])
def test_a_last_source_off_by_one_is_found(by, monkeypatch, dtype):
    right = decoding.sight_of

    def sight_of(*args):
        *others, length, span = right(*args)
        return *others, length + by, span._replace(past=span.past + by, all_past=span.past + by)

    monkeypatch.setattr(decoding, "sight_of", sight_of)
    assert not is_right(dtype, keywords={"key_lengths": [SEGMENT + 34]})
    if by < 0:
        with pytest.raises(Fault, match="scratch that nobody wrote"):
            run(dtype, keywords={"key_lengths": [SEGMENT + 1]})


@of_each_product
def test_a_bound_of_the_copies_too_far_is_found(monkeypatch, dtype):
    right = decoding.copy_rows

    def too_far(*args):
        *others, (low, high) = args
        right(*others, (low, high + 6))

    monkeypatch.setattr(decoding, "copy_rows", too_far)
    with pytest.raises(Fault, match=r"out of bounds|where there is no array"):
        run(dtype)


def without_carry(of_sums):
    def merge_parts(m, parts):
        top, total, sums = merging.merge_parts(m, parts)
        if of_sums:
            sums = [sum(part[2][i] for part in parts) for i in range(8)]
        else:
            total = sum(part[1] for part in parts)
        return [top, total, sums]

    return merge_parts


@pytest.mark.parametrize("of_sums", [False, True])
@pytest.mark.parametrize("of_segments", [False, True])
def test_a_merge_that_forgets_the_carry_is_found(of_sums, of_segments, monkeypatch, dtype):
    wrong, right = without_carry(of_sums), merging.merge_parts

    def merge_parts(m, parts):
        merging.merge_parts = right  # the planted one asks for it
        try:
            return wrong(m, parts)
        finally:
            merging.merge_parts = merge_parts

    if of_segments:
        monkeypatch.setattr(merging, "merge_parts", merge_parts)
    else:
        monkeypatch.setattr(decoding, "merge_parts", wrong)
    assert not is_right(dtype)


def test_a_segment_that_nobody_wrote_is_not_read_and_one_that_was_is(monkeypatch, dtype):
    monkeypatch.setattr(merging, "_was_written", lambda segment, span: segment >= 0)
    with pytest.raises(Fault, match=r"scratch that nobody wrote|out of bounds"):
        run(dtype)
    monkeypatch.setattr(merging, "_was_written", lambda segment, span: segment == 0)
    assert not is_right(dtype)


def test_a_row_merged_over_too_few_lanes_is_found(dtype):
    class Lonely(Twin):
        def shuffle(self, x, mask):
            return x if mask == 2 else super().shuffle(x, mask)

    assert not is_right(dtype, Lonely)


@pytest.mark.parametrize("machine", TRANSPOSED[2])
def test_a_transposed_fragment_is_found(machine, dtype):
    assert not is_right(dtype, machine)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        *(("bfloat16", name) for name in ("key_at", "value_at", "kinds_at")),
        *(("3xtf32", name) for name in ("key_at", "value_at", "kinds_at")),
        *(("fma", name) for name in ("key_at", "value_at")),
    ],
    indirect=["dtype"],
)
def test_a_tile_taken_from_another_place_of_the_ring_is_found(name, monkeypatch, dtype):
    right = getattr(Decoding, name)
    monkeypatch.setattr(Decoding, name, lambda self, stage: right(self, stage * 0))
    with suppress(Fault):
        assert not is_right(dtype)


@of_each_product
def test_a_row_taken_for_another_heads_is_found(monkeypatch, dtype):
    right = decoding._row_of

    def row_of(m, first, row):
        h, t = right(m, first, row)
        return 2 * first + 1 - h, t

    monkeypatch.setattr(decoding, "_row_of", row_of)
    assert not is_right(dtype)


@of_each_product
def test_a_hidden_value_that_is_multiplied_is_found(monkeypatch, dtype):
    monkeypatch.setattr(decoding, "has_specials", lambda m, variant, value: m.thread < 0)
    assert not is_right(dtype)


def test_a_special_that_is_forgotten_or_given_to_others_is_found(monkeypatch, dtype):
    right = shares.add_specials
    monkeypatch.setattr(shares, "add_specials", lambda *args: args[-1])
    assert not is_right(dtype)

    def of_all(m, variant, kinds, seen, k, sums):
        return right(m, variant, kinds, [m.word(0xFF)], k, sums)

    monkeypatch.setattr(shares, "add_specials", of_all)
    assert not is_right(dtype)
