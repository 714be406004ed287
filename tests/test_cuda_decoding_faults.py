"""Wrong decoding kernels: each is planted, and what checks the kernels must find it."""

from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest

from material.twins import is_within_budget, leaving_out, vote_without_a_barrier
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import decoding, merging
from mhakit.backends.cuda.tiles.memory import Fault
from mhakit.backends.cuda.tiles.segments import SEGMENT, Decoding, decoding_of
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import Sizes, draw

SIZES = Sizes(1, 4, 2, 3, SEGMENT + 40, 128, 128)
KEYWORDS = {"window": (161, 0), "query_offset": SEGMENT + 32, "key_lengths": [SEGMENT + 35]}
"""Targets see from sources 127, 128 and 129 on, so that two tiles hide something there."""


def draw_poisoned():
    """Return arrays with a NaN in sight of some targets, so that every path of the kernel runs."""
    query, key, value = draw(SIZES, np.dtype(ml_dtypes.bfloat16), seed=4)
    query *= 3  # a row's tops differ between warps and segments
    value[0, 1, 128, 3] = value[0, 1, SEGMENT + 34, 5] = np.nan
    return query, key, value


def run(machine=Twin, keywords=KEYWORDS):
    problem, _ = as_problem(*draw_poisoned(), **keywords)
    return run_twin(problem, decoding_of(problem), machine=machine)


def is_right(machine=Twin, keywords=KEYWORDS):
    return is_within_budget(run(machine, keywords), draw_poisoned(), keywords)


def test_the_kernels_that_mutants_are_made_of_are_right():
    assert is_right()


def test_a_missing_barrier_is_found_wherever_it_is():
    machine = leaving_out("barrier")
    run(machine)
    last = max(machine.counts) - 1
    assert last >= 3 + 2 + 2, "one or two for each tile, two for specials, two around the parts"
    # where warps leave their parts, sources were read, in blocks that ended at another stage
    from_last = [lambda block, call, i=i: call == machine.counts[block] - i for i in (1, 2)]
    for which in [*range(last - 1), *from_last]:
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier", which))


def test_a_missing_barrier_of_a_vote_is_found():
    machine = leaving_out("barrier_any")
    run(machine)
    assert max(machine.counts) == 2 + SIZES.E // 16, "one for each tile that hides, and a special's"
    for which in (0, 1):
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier_any", which, vote_without_a_barrier))


def test_a_copy_that_was_not_waited_for_is_found():
    for of_values in (0, 1):
        with pytest.raises(Fault, match="not waited for"):
            run(leaving_out("wait", lambda block, call, i=of_values: call % 2 == i))


def test_a_wait_for_one_group_too_few_is_found():
    class Hasty(Twin):
        def wait(self, groups):
            super().wait(groups + 1 if groups else 0)

    with pytest.raises(Fault, match="not waited for"):
        run(Hasty)


@pytest.mark.parametrize(("begin", "stop"), [(1, 0), (0, 1), (0, -1)])
def test_a_segment_that_ends_or_begins_elsewhere_is_found(begin, stop, monkeypatch):
    right = decoding._tiles_of

    def tiles_of(*args):
        first, past = right(*args)
        return first + begin, past + stop

    monkeypatch.setattr(decoding, "_tiles_of", tiles_of)
    with suppress(Fault):
        assert not is_right()


@pytest.mark.parametrize("by", [-1, 1])
def test_a_last_source_off_by_one_is_found(by, monkeypatch):
    right = decoding.sight_of

    def sight_of(*args):
        *others, length, span = right(*args)
        return *others, length + by, span._replace(past=span.past + by, all_past=span.past + by)

    monkeypatch.setattr(decoding, "sight_of", sight_of)
    assert not is_right(keywords={"key_lengths": [SEGMENT + 34]})
    if by < 0:
        with pytest.raises(Fault, match="scratch that nobody wrote"):
            run(keywords={"key_lengths": [SEGMENT + 1]})


def test_a_bound_of_the_copies_too_far_is_found(monkeypatch):
    right = decoding.copy_rows

    def too_far(*args):
        *others, (low, high) = args
        right(*others, (low, high + 6))

    monkeypatch.setattr(decoding, "copy_rows", too_far)
    with pytest.raises(Fault, match=r"out of bounds|where there is no array"):
        run()


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
def test_a_merge_that_forgets_the_carry_is_found(of_sums, of_segments, monkeypatch):
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
    assert not is_right()


def test_a_segment_that_nobody_wrote_is_not_read_and_one_that_was_is(monkeypatch):
    monkeypatch.setattr(merging, "_was_written", lambda segment, span: segment >= 0)
    with pytest.raises(Fault, match=r"scratch that nobody wrote|out of bounds"):
        run()
    monkeypatch.setattr(merging, "_was_written", lambda segment, span: segment == 0)
    assert not is_right()


def test_a_row_merged_over_too_few_lanes_is_found():
    class Lonely(Twin):
        def shuffle(self, x, mask):
            return x if mask == 2 else super().shuffle(x, mask)

    assert not is_right(Lonely)


@pytest.mark.parametrize("of_values", [False, True])
def test_a_transposed_fragment_is_found(of_values):
    class Transposed(Twin):
        def load_matrices(self, address, *, transposed):
            turned = not transposed if transposed == of_values else transposed
            return super().load_matrices(address, transposed=turned)

    assert not is_right(Transposed)


def test_operands_in_the_wrong_order_are_found():
    class Swapped(Twin):
        def multiply(self, a, b, c):
            return super().multiply(a, b[::-1], c)

    class Halves(Twin):
        def multiply(self, a, b, c):
            return super().multiply([a[0], a[2], a[1], a[3]], b, c)

    class Pairs(Twin):
        def pack(self, low, high):
            return super().pack(high, low)

    for machine in (Swapped, Halves, Pairs):
        assert not is_right(machine), machine.__name__


@pytest.mark.parametrize("name", ["key_at", "value_at", "kinds_at"])
def test_a_tile_taken_from_another_place_of_the_ring_is_found(name, monkeypatch):
    right = getattr(Decoding, name)
    monkeypatch.setattr(Decoding, name, lambda self, stage: right(self, stage * 0))
    with suppress(Fault):
        assert not is_right()


def test_a_row_taken_for_another_heads_is_found(monkeypatch):
    right = decoding._KeyHead.of

    def of(self, m, row):
        h, t = right(self, m, row)
        return 2 * self.h + 1 - h, t

    monkeypatch.setattr(decoding._KeyHead, "of", of)
    assert not is_right()


def test_a_hidden_value_that_is_multiplied_is_found(monkeypatch):
    monkeypatch.setattr(decoding, "has_specials", lambda m, variant, value: m.thread < 0)
    assert not is_right()


def test_a_special_that_is_forgotten_or_given_to_others_is_found(monkeypatch):
    right = decoding.add_specials
    monkeypatch.setattr(decoding, "add_specials", lambda *args: args[-1])
    assert not is_right()

    def of_all(m, variant, kinds, seen, k, sums):
        return right(m, variant, kinds, [m.word(0xFF)], k, sums)

    monkeypatch.setattr(decoding, "add_specials", of_all)
    assert not is_right()
