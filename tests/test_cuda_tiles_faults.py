"""Wrong kernels: each is planted, and what checks the tile kernels must find it."""

from contextlib import suppress
from itertools import product

import ml_dtypes
import numpy as np
import pytest

from material.twins import is_within_budget, leaving_out, vote_without_a_barrier
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import attention, fragments, scores
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.memory import Fault, GlobalMemory, SharedMemory
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


# the memory of the twin

THREADS = np.arange(4)


def words(*values):
    return np.array(values, np.uint32)[:, None].view(np.uint8)


def test_shared_memory_tells_each_fault_from_the_others():
    memory = SharedMemory(64)
    with pytest.raises(Fault, match="that nobody wrote"):
        memory.read(4 * THREADS, 4, THREADS)
    memory.write(4 * THREADS, words(1, 2, 3, 4), THREADS)
    assert (memory.read(4 * THREADS, 4, THREADS) == words(1, 2, 3, 4)).all()
    with pytest.raises(Fault, match="a read that no barrier separates"):
        memory.read(4 * THREADS[::-1], 4, THREADS)
    with pytest.raises(Fault, match="another's write"):
        memory.write(4 * THREADS[::-1], words(1, 2, 3, 4), THREADS)
    memory.barrier()
    memory.read(4 * THREADS[::-1], 4, THREADS)
    with pytest.raises(Fault, match="another's read"):
        memory.write(4 * THREADS, words(1, 2, 3, 4), THREADS)
    memory.barrier()
    with pytest.raises(Fault, match="to one place at once"):
        memory.write(0 * THREADS, words(1, 2, 3, 4), THREADS)
    with pytest.raises(Fault, match="at no multiple of 4"):
        memory.read(4 * THREADS + 2, 4, THREADS)
    with pytest.raises(Fault, match="out of bounds of shared memory"):
        memory.read(4 * THREADS + 64, 4, THREADS)
    memory.copy(np.array([48]), np.ones((1, 16), np.uint8), np.array([0]))
    memory.commit()
    with pytest.raises(Fault, match="not waited for"):
        memory.read(np.array([48]), 4, np.array([0]))
    with pytest.raises(Fault, match="where a copy is arriving"):
        memory.write(np.array([48]), words(1), np.array([0]))
    with pytest.raises(Fault, match="before its copies arrived"):
        memory.finish()
    memory.wait(0)
    memory.read(np.array([48]), 4, np.array([0]))
    with pytest.raises(Fault, match="a read that no barrier separates"):
        memory.read(np.array([48]), 4, np.array([1]))
    memory.finish()


def test_global_memory_tells_each_fault_from_the_others():
    memory = GlobalMemory()
    given, out = np.arange(16, dtype=np.float32), np.zeros((4, 4), np.float32)[:, :3]
    place, target = memory.add(given), memory.add(out, output=True)
    assert (memory.read(np.array([place + 8]), 4).view(np.float32) == 2).all()
    with pytest.raises(Fault, match="at an address that is no multiple of 16"):
        memory.read(np.array([place + 8]), 16)
    with pytest.raises(Fault, match="out of bounds of its array"):
        memory.read(np.array([place, place + 64]), 16)
    with pytest.raises(Fault, match="where there is no array"):
        memory.read(np.array([place + 64]), 4)
    with pytest.raises(Fault, match="an array that is only read"):
        memory.write(np.array([place]), words(1))
    for row in range(4):
        memory.write(target + 16 * row + 4 * np.arange(3), words(row, row, row))
        if row < 3:
            with pytest.raises(Fault, match=f"{9 - 3 * row} elements of the output were not"):
                memory.check_written()
    memory.check_written()
    with pytest.raises(Fault, match="written twice"):
        memory.write(np.array([target]), words(1))


def test_threads_that_go_different_ways_are_a_fault():
    class Divergent(Twin):
        def barrier_any(self, condition):
            super().barrier_any(condition)
            return self.thread < 7

    with pytest.raises(Fault, match="must agree on where they go"):
        run(Divergent)


def test_a_number_that_does_not_fit_32_bits_is_a_fault():
    twin = Twin("float16", 32, 0, 64, GlobalMemory(), {})
    with pytest.raises(Fault, match="does not fit an int32"):
        twin.int32(np.int64(2**31))
    with pytest.raises(TypeError, match="must be of one type"):
        twin.select(np.bool_(True), np.int32(1), np.int64(1))
