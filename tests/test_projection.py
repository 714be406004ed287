"""Rows times a matrix, plus a bias: exact to the roundings of its sum, whatever lies where."""

from __future__ import annotations

import itertools
import mmap
from pathlib import Path

import numba
import numpy as np
import pytest

from material.arrays import unaligned
from mhakit.backends.cpu import launch, slices
from mhakit.backends.cpu import projection as cpu

SIZES = [
    (1, 5, 7),
    (32, 1, 1),
    (33, 7, 3),
    (64, 0, 5),
    (40, 3, 64),
    (513, 96, 70),
    (130, 2 * cpu.DEPTH + 1, 65),
    (2 * cpu.ROWS + 1, 19, 200),
]


@pytest.fixture
def always(monkeypatch):
    """Give every product to the kernel."""
    monkeypatch.setattr(cpu, "FEWEST", 1)
    monkeypatch.setattr(cpu, "LEAST", 0)


def drawn(n, K, N, dtype=np.float32, narrow=None):
    generator = np.random.default_rng()
    rows = generator.standard_normal((n, K)).astype(dtype)
    weight, bias = generator.standard_normal((K, N)), generator.standard_normal(N)
    return rows, weight.astype(narrow or dtype), bias.astype(narrow or dtype)


def product(rows, weight, bias=None):
    """Return the product, written between numbers that must stay as they are."""
    n, N = len(rows), weight.shape[1]
    room = np.full((n + 2, N + 2), np.nan, rows.dtype)
    room[0], room[-1], room[:, 0], room[:, -1] = 7, 7, 7, 7
    cpu.project(rows, weight, bias, room[1:-1, 1:-1])
    edge = [room[0], room[-1], room[:, 0], room[:, -1]]
    assert all((side == 7).all() for side in edge)
    return room[1:-1, 1:-1]


def assert_exact(result, rows, weight, bias):
    """Assert that no number is off by more than each step of its sum, rounded, may be."""
    wide = [np.asarray(array, np.longdouble) for array in (rows, weight, bias)]
    exact = wide[0] @ wide[1] + wide[2]
    size = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2])
    allowed = (rows.shape[1] + 1) * np.finfo(result.dtype).eps / 2 * size
    assert result.dtype == rows.dtype
    assert (np.abs(result - exact) <= allowed).all()


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "as it chooses"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_is_exact_to_its_roundings(dtype, size, kernel, request):
    if kernel:
        request.getfixturevalue("always")
    rows, weight, bias = drawn(*size, dtype)
    assert_exact(product(rows, weight, bias), rows, weight, bias)
    assert_exact(product(rows, weight), rows, weight, np.zeros_like(bias))


def test_wherever_the_arrays_lie_the_bits_are_the_same(always):
    rows, weight, bias = drawn(70, 50, 90)
    expected = product(rows, weight, bias)

    def views_of(array):
        sparse = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
        every_other = sparse[(slice(None, None, 2),) * array.ndim]
        every_other[...] = array
        backwards = np.flip(np.ascontiguousarray(np.flip(array)))
        return [np.asfortranarray(array), every_other, backwards, unaligned(array)]

    for view in views_of(rows):
        np.testing.assert_array_equal(product(view, weight, bias), expected)
    for view in views_of(weight):
        np.testing.assert_array_equal(product(rows, view, bias), expected)
    for view in views_of(bias):
        np.testing.assert_array_equal(product(rows, weight, view), expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_16_bit_weights_are_widened_and_not_rounded(narrow, order, always):
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, narrow, narrow))
    rows, weight, bias = drawn(70, 50, 90, narrow=kind)
    weight = np.asarray(weight, order=order)
    wide = weight.astype(np.float32), bias.astype(np.float32)
    np.testing.assert_array_equal(product(rows, weight, bias), product(rows, *wide))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rows_bits_depend_on_nothing_beside_it(dtype, always, monkeypatch):
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    rows, weight, bias = drawn(700, 800, 100, dtype)
    expected = product(rows, weight, bias)
    for first, past in ((0, 1), (3, 8), (5, 262), (1, 700)):
        part = product(rows[first:past], weight, bias)
        np.testing.assert_array_equal(part, expected[first:past])
    for first, past in ((0, 1), (7, 71), (30, 99)):
        part = product(rows, weight[:, first:past], bias[first:past])
        np.testing.assert_array_equal(part, expected[:, first:past])
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(product(rows, weight, bias), expected)
    finally:
        numba.set_num_threads(threads)


def test_a_long_sum_in_several_launches_has_the_bits_of_one(always, monkeypatch):
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    rows, weight, bias = drawn(90, 4 * cpu.DEPTH + 5, 70)
    expected = product(rows, weight, bias)
    launches, run = [], slices._launch
    monkeypatch.setattr(slices, "_launch", lambda *given: launches.append(0) or run(*given))
    monkeypatch.setattr(slices, "SLICE", 1.0)
    np.testing.assert_array_equal(product(rows, weight, bias), expected)
    assert len(launches) >= 5  # a block of a sum at a time


def test_launches_of_one_product_may_have_more_and_fewer_workers(always, monkeypatch):
    """Whoever finds the parallel region taken runs alone, until it is not."""
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    monkeypatch.setattr(slices, "SLICE", 1.0)
    rows, weight, bias = drawn(3 * cpu.SHARE + 1, 20, 500)
    busy, free, workers, run = itertools.cycle([True, False]), slices.runs_alone, [], slices._launch
    monkeypatch.setattr(slices, "runs_alone", lambda work: next(busy) or free(work))
    monkeypatch.setattr(slices, "_launch", lambda *given: workers.append(given[-1]) or run(*given))
    assert_exact(product(rows, weight, bias), rows, weight, bias)
    assert set(workers) == {1, numba.get_num_threads()}


def test_what_is_no_number_stays_in_its_row_and_column(always):
    rows, weight, bias = drawn(70, 50, 90)
    clean = product(rows, weight, bias)
    rows[3, 7], weight[9, 68], bias[80] = np.nan, np.inf, -np.inf
    result = product(rows, weight, bias)
    assert np.isnan(result[3]).all()
    others = np.arange(70) != 3
    assert not np.isfinite(result[:, 68]).any()
    assert (result[others, 80] == -np.inf).all()
    kept = [column for column in range(90) if column not in (68, 80)]
    np.testing.assert_array_equal(result[others][:, kept], clean[others][:, kept])


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="pages are guarded by POSIX's mprotect")
def test_nothing_beyond_the_arrays_is_read_or_written(run_fresh):
    printed = run_fresh(
        """
        import numpy as np
        from mhakit.backends.cpu import projection as cpu
        from material.guarded import at_the_end
        cpu.FEWEST, cpu.LEAST = 1, 0

        for order in "CF":
            for n, K, N in ((5, 3, 1), (7, 40, 67), (33, 65, 130)):
                rows, bias, out = (
                    at_the_end(np.ones(shape, np.float32)) for shape in ((n, K), N, (n, N))
                )
                weight = at_the_end(np.ones((K, N), np.float32), order)
                cpu.project(rows, weight, bias, out)
                assert (out == K + 1).all()
        print("intact")
        """,
        path=Path(__file__).parent,
    )
    assert printed == "intact"


def test_what_is_small_is_left_to_blas_and_what_is_not_is_not(monkeypatch):
    given = []
    monkeypatch.setattr(cpu, "_multiply", lambda *arrays: given.append(arrays[0].shape))
    for n, K, N in ((cpu.FEWEST - 1, 768, 768), (cpu.FEWEST, 8, 8), (cpu.FEWEST, 256, 256)):
        rows, weight, bias = drawn(n, K, N)
        cpu.project(rows, weight, bias, np.empty((n, N), np.float32))
    assert given == [(cpu.FEWEST, 256)]
