"""Wrong kernels: each is planted, and what checks the tile kernels must find it."""

from contextlib import suppress
from itertools import product

import ml_dtypes
import numpy as np
import pytest

from material.twins import TRANSPOSED, is_within_budget, leaving_out, vote_without_a_barrier
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import attention, fragments, scores
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.memory import Fault
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import Sizes, draw

SIZES = Sizes(1, 1, 1, 70, 150, 64, 64)
KEYWORDS = {"causal": "bottom_right"}


def draw_poisoned(kind="bfloat16"):
    """Return arrays with a NaN in sight of some targets, so that every path of the kernel runs."""
    query, key, value = draw(SIZES, np.dtype(getattr(ml_dtypes, kind)), seed=4)
    value[0, 0, 100, 3] = np.nan
    return query, key, value


def run(machine=Twin):
    return run_twin(as_problem(*draw_poisoned(), **KEYWORDS)[0], machine=machine)


def is_right(machine=Twin):
    return is_within_budget(run(machine), draw_poisoned(), KEYWORDS)


def calls_of(verb):
    """Return how often the block that calls a verb most calls it."""
    machine = leaving_out(verb)
    run(machine)
    return max(machine.counts)


def test_the_kernel_that_mutants_are_made_of_is_right():
    assert is_right()


def test_a_missing_barrier_is_found_wherever_it_is():
    count = calls_of("barrier")
    assert count >= 6, "the kernel has barriers in its loop and after it"
    for which in [*range(count - 2), count - 1]:
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier", which))
    # the one right after the loop matters where the loop had no turn
    empty, _ = as_problem(*draw(SIZES._replace(S=0), np.float16))
    with pytest.raises(Fault, match="no barrier separates"):
        run_twin(empty, machine=leaving_out("barrier", 0))


def test_a_missing_barrier_of_a_vote_is_found():
    for which in range(calls_of("barrier_any")):
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier_any", which, vote_without_a_barrier))


def test_a_copy_that_was_not_waited_for_is_found():
    count = calls_of("wait")
    assert count >= 4
    for which in range(count - 1):  # the last one has nothing to wait for unless S is 0
        with pytest.raises(Fault, match=r"not waited for|a copy is arriving"):
            run(leaving_out("wait", which))
    empty, _ = as_problem(*draw(SIZES._replace(S=0), np.float16))
    with pytest.raises(Fault, match=r"a copy is arriving"):
        run_twin(empty, machine=leaving_out("wait", 0))


def test_a_bound_of_the_copies_off_by_one_is_found(monkeypatch):
    right = fragments.copy_rows

    def too_far(*args):
        *others, (low, high) = args
        right(*others, (low, high + 1))

    monkeypatch.setattr(attention, "copy_rows", too_far)
    with pytest.raises(Fault, match="out of bounds"):
        run()


@pytest.mark.parametrize("off", [-1, 1])
def test_a_bound_of_the_output_off_by_one_is_found(monkeypatch, off):
    right = fragments.store_rows

    def store(*args):
        *others, past = args
        right(*others, past + off)

    monkeypatch.setattr(attention, "store_rows", store)
    with pytest.raises(Fault, match=r"not written|out of bounds|written twice"):
        run()


@pytest.mark.parametrize("off", [-1, 1])
def test_a_bound_of_visibility_off_by_one_is_found(monkeypatch, off):
    right = scores.hide

    def hide(m, variant, place, *others):
        return right(m, variant, place._replace(right=place.right + off), *others)

    monkeypatch.setattr(attention, "hide", hide)
    assert not is_right()


def test_a_border_tile_taken_for_a_full_one_is_found(monkeypatch):
    monkeypatch.setattr(attention, "hides", lambda m, variant, place, tile: tile < 0)
    assert not is_right()


@pytest.mark.parametrize("machine", TRANSPOSED[2])
def test_a_transposed_fragment_is_found(machine):
    assert not is_right(machine)


def test_a_row_of_scores_reduced_over_too_few_lanes_is_found():
    class Lonely(Twin):
        def shuffle(self, x, mask):
            return x if mask == 2 else super().shuffle(x, mask)

    assert not is_right(Lonely)


def test_a_chunk_that_is_read_elsewhere_than_it_was_written_is_found(monkeypatch):
    def step(self, place, rows, chunks):
        return place + (rows * self.pitch + (chunks * 16 + self.start))

    monkeypatch.setattr(Layout, "step", step)
    with suppress(Fault):
        assert not is_right()


def test_a_hidden_value_that_is_multiplied_is_found(monkeypatch):
    monkeypatch.setattr(attention, "has_specials", lambda m, variant, value: m.thread < 0)
    assert not is_right()


def test_a_special_that_is_put_aside_and_forgotten_is_found(monkeypatch):
    monkeypatch.setattr(attention, "mark_specials", lambda m, variant, seen: None)
    assert not is_right()


def test_no_eight_rows_of_a_chunk_share_a_bank():
    for width, size in product((32, 64, 80, 96, 128, 256), (2, 4)):
        layout = Layout(width, 0, size)
        for chunk in range(layout.chunks):
            for first in range(0, 64, 8):
                rows = np.arange(first, first + 8)
                banks = layout.place(rows, np.full(8, chunk)) // 16 % 8
                assert len(set(banks)) == 8, (width, chunk, first)
        rows, chunks = np.meshgrid(np.arange(64), np.arange(layout.chunks))
        places = layout.place(rows, chunks)
        assert np.unique(places).size == places.size
        assert places.max() + 16 <= 64 * layout.pitch
