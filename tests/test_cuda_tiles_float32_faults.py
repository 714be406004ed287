"""Wrong kernels of float32: each is planted, and what checks the tile kernels must find it."""

import numpy as np
import pytest

from material.twins import (
    TRANSPOSED,
    is_within_budget,
    leaving_out,
    unmarking,
    vote_without_a_barrier,
)
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import attention, fma, fragments, softmax
from mhakit.backends.cuda.tiles.call import ASKED
from mhakit.backends.cuda.tiles.memory import Fault
from mhakit.backends.cuda.tiles.product import ThreeTf32
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.testing import Sizes, draw

SIZES = Sizes(1, 1, 1, 40, 75, 32, 32)
KEYWORDS = {"causal": "bottom_right"}


def drawn(special=np.nan):
    """Return arrays with a NaN in sight of some targets, so that every path of the kernel runs."""
    query, key, value = draw(SIZES, np.float32, seed=4)
    value[0, 0, 50, 3] = special
    return query, key, value


def run(machine=Twin, arrays=None, keywords=KEYWORDS):
    arrays = drawn() if arrays is None else arrays
    return run_twin(as_problem(*arrays, **keywords)[0], machine=machine)


def is_right(machine=Twin, arrays=None, keywords=KEYWORDS):
    arrays = drawn() if arrays is None else arrays
    return is_within_budget(run(machine, arrays, keywords), arrays, keywords)


def of_one_sign():
    query, key, value = draw(Sizes(1, 1, 1, 3, 300, 128, 32), np.float32, seed=1)
    return np.abs(query), np.abs(key), np.abs(value)


@pytest.fixture
def by_fma(monkeypatch):
    monkeypatch.setenv(ASKED, "fma")


def test_the_kernel_of_three_products_that_mutants_are_made_of_is_right():
    assert is_right()
    assert is_right(arrays=of_one_sign(), keywords={"scale": 0.01})
    assert is_right(arrays=drawn(np.finfo(np.float32).max))
    assert is_right(arrays=drawn(np.inf))


def test_the_kernel_of_fma_that_mutants_are_made_of_is_right(by_fma):
    assert is_right()


def test_a_missing_barrier_is_found_in_the_kernel_of_three_products():
    machine = leaving_out("barrier")
    run(machine)
    (calls,) = machine.counts
    assert calls >= 6
    # the one after the loop matters where the loop had no turn, or where 16 bits are stored
    for which in range(calls - 1):
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier", which))


def test_a_missing_barrier_is_found_in_the_kernel_of_fma(by_fma):
    machine = leaving_out("barrier")
    run(machine)
    (calls,) = machine.counts
    assert calls >= 9
    # the first one has nothing before it but queries, which the second one parts from their use
    for which in range(1, calls):
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier", which))


def test_a_missing_barrier_of_a_vote_is_found_in_the_kernel_of_fma(by_fma):
    machine = leaving_out("barrier_any")
    run(machine)
    (calls,) = machine.counts
    assert calls == 2, "two tiles hide something"
    for which in range(calls):
        with pytest.raises(Fault, match="no barrier separates"):
            run(leaving_out("barrier_any", which, vote_without_a_barrier))


@pytest.mark.parametrize("off", [-1, 1])
def test_a_bound_of_the_output_off_by_one_is_found(monkeypatch, off):
    right = fragments.store_rows

    def store(*args):
        *others, past = args
        right(*others, past + off)

    monkeypatch.setattr(attention, "store_rows", store)
    with pytest.raises(Fault, match=r"not written|out of bounds|written twice"):
        run()


def test_a_bound_of_the_sources_off_by_one_is_found(by_fma, monkeypatch):
    right = fma.load_rows

    def too_far(*args):
        *others, (low, high) = args
        right(*others, (low, high + 1))

    monkeypatch.setattr(fma, "load_rows", too_far)
    with pytest.raises(Fault, match="out of bounds"):
        run()


@pytest.mark.parametrize("name", ["3xtf32", "fma"])
@pytest.mark.parametrize("off", [-1, 1])
def test_a_bound_of_visibility_off_by_one_is_found(monkeypatch, name, off):
    kernel = {"3xtf32": attention, "fma": fma}[name]
    right = kernel.hide

    def hide(m, variant, place, *others):
        return right(m, variant, place._replace(right=place.right + off), *others)

    monkeypatch.setattr(kernel, "hide", hide)
    monkeypatch.setenv(ASKED, "fma" if kernel is fma else "")
    assert not is_right()


@pytest.mark.parametrize("machine", TRANSPOSED[4])
def test_a_transposed_fragment_is_found(machine):
    assert not is_right(machine)


def test_transposed_weights_are_found(monkeypatch):
    right = ThreeTf32.weights
    monkeypatch.setattr(ThreeTf32, "weights", lambda self, m, group, k: right(
        self, m, [[a, c, b, d] for a, b, c, d in group], k))  # fmt: skip
    assert not is_right()


@pytest.mark.parametrize("which", ["small * big", "big * small"])
def test_a_correction_that_is_left_out_is_found(monkeypatch, which):
    def correct(self, m, a, b, sums):
        (big, small), (big_b, small_b) = a, b
        return m.multiply(*((big, small_b) if which == "small * big" else (small, big_b)), sums)

    monkeypatch.setattr(ThreeTf32, "_correct", correct)
    assert not is_right()


def test_products_that_tensor_cores_add_up_are_found(monkeypatch):
    """They cut off, each time in the same direction."""
    monkeypatch.setattr(ThreeTf32, "add_score", ThreeTf32.add)
    assert not is_right(arrays=of_one_sign(), keywords={"scale": 0.01})


def test_a_number_that_is_rounded_up_to_infinity_is_found(monkeypatch):
    def whole(self, m, words):
        return self._split(m, [m.of_bits(word) for word in words])

    monkeypatch.setattr(ThreeTf32, "operand", whole)
    monkeypatch.setattr(Variant, "worth", 1.0)
    assert is_right()
    assert not is_right(arrays=drawn(np.finfo(np.float32).max))


def test_the_rest_of_an_infinity_that_counts_is_found(monkeypatch):
    def total(self, m, sums):
        return [big + small for big, small in zip(*sums, strict=True)]

    monkeypatch.setattr(ThreeTf32, "_total", total)
    query, key, value = draw(SIZES, np.float32, seed=4)
    key[0, 0, 3, 5] = np.inf
    query[0, 0, :, 5] = -1.0
    assert not is_right(arrays=(query, key, value))
    monkeypatch.undo()
    assert is_right(arrays=(query, key, value))


@pytest.mark.parametrize("name", ["3xtf32", "fma"])
def test_a_hidden_value_that_is_multiplied_is_found(monkeypatch, name):
    kernel = {"3xtf32": attention, "fma": fma}[name]
    monkeypatch.setattr(kernel, "has_specials", lambda m, variant, value: m.thread < 0)
    monkeypatch.setenv(ASKED, "fma" if kernel is fma else "")
    assert not is_right()


def test_a_hidden_weight_that_nobody_can_tell_from_a_small_one_is_found(by_fma, monkeypatch):
    monkeypatch.setattr(fma, "store_weights", unmarking(fma.store_weights))
    assert not is_right()


def test_an_infinity_that_a_later_weight_outweighs_stays_one(by_fma, monkeypatch):
    query, key, value = draw(SIZES, np.float32, seed=4)
    key[0, 0, 60] = 30 * query[0, 0, -1]
    value[0, 0, 5, 3] = np.inf
    assert is_right(arrays=(query, key, value))
    monkeypatch.setattr(softmax, "_LEAST", 0.0)
    assert not is_right(arrays=(query, key, value))
