"""Wrong decoding kernels of float32: each is planted, and what checks the kernels must find it."""

from contextlib import suppress

import numpy as np
import pytest

from material.twins import TRANSPOSED, is_within_budget, leaving_out, unmarking
from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import decoding, fma, shares, softmax
from mhakit.backends.cuda.tiles.call import ASKED
from mhakit.backends.cuda.tiles.memory import Fault
from mhakit.backends.cuda.tiles.product import ThreeTf32
from mhakit.backends.cuda.tiles.segments import ROWS, SEGMENT, Decoding, FmaDecoding, decoding_of
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.testing import Sizes, draw

SIZES = Sizes(1, 4, 2, 3, SEGMENT + 40, 32, 80)
KEYWORDS = {"window": (161, 0), "query_offset": SEGMENT + 32, "key_lengths": [SEGMENT + 35]}
LARGEST = np.finfo(np.float32).max
WIDE = Sizes(1, 2, 1, 3, 100, 32, 256)
SLIDING = {"window": (80, 0), "query_offset": 97}
OTHER_WARPS = {"the other of two": lambda warp: warp ^ 1, "the first of two": lambda warp: warp & 2}


def drawn(special=np.nan):
    """Return arrays with a special in sight of some targets, so that every path runs."""
    query, key, value = draw(SIZES, np.float32, seed=4)
    query *= 3  # a row's tops differ between warps and segments
    value[0, 1, 128, 3] = value[0, 1, SEGMENT + 34, 5] = special
    return query, key, value


def wide():
    """Return the same for values whose columns two warps share."""
    query, key, value = draw(WIDE, np.float32, seed=4)
    query *= 3
    value[0, 0, 18, [3, 200]] = np.nan
    return query, key, value


def of_one_sign():
    query, key, value = draw(Sizes(1, 1, 1, 3, 300, 128, 32), np.float32, seed=1)
    return np.abs(query), np.abs(key), np.abs(value)


def is_right(machine=Twin, arrays=None, keywords=KEYWORDS):
    arrays = drawn() if arrays is None else arrays
    problem, _ = as_problem(*arrays, **keywords)
    found = run_twin(problem, decoding_of(problem), machine=machine)
    return is_within_budget(found, arrays, keywords)


@pytest.fixture
def by_tf32(monkeypatch):
    monkeypatch.delenv(ASKED, raising=False)


@pytest.fixture
def by_fma(monkeypatch):
    monkeypatch.setenv(ASKED, "fma")


@pytest.fixture
def asked(request, monkeypatch):
    """Each way to multiply."""
    monkeypatch.setenv(ASKED, request.param)
    return request.param


of_each_product = pytest.mark.parametrize("asked", ["", "fma"], indirect=True)


def test_the_kernel_of_three_products_that_mutants_are_made_of_is_right(by_tf32):
    assert is_right()
    assert is_right(arrays=of_one_sign(), keywords={"scale": 0.01})
    assert is_right(arrays=drawn(LARGEST))
    assert is_right(arrays=drawn(np.inf))


def test_the_kernel_of_fma_that_mutants_are_made_of_is_right(by_fma):
    assert is_right()
    assert is_right(arrays=drawn(LARGEST))
    assert is_right(arrays=drawn(np.inf))


@pytest.mark.parametrize("machine", TRANSPOSED[4])
def test_a_transposed_fragment_is_found(machine, by_tf32):
    assert not is_right(machine)


@pytest.mark.parametrize("which", ["small * big", "big * small"])
def test_a_correction_that_is_left_out_is_found(which, by_tf32, monkeypatch):
    def correct(self, m, a, b, sums):
        (big, small), (big_b, small_b) = a, b
        return m.multiply(*((big, small_b) if which == "small * big" else (small, big_b)), sums)

    monkeypatch.setattr(ThreeTf32, "_correct", correct)
    assert not is_right()


def test_products_that_tensor_cores_add_up_are_found(by_tf32, monkeypatch):
    """They cut off, each time in the same direction."""
    monkeypatch.setattr(ThreeTf32, "add_score", ThreeTf32.add)
    assert not is_right(arrays=of_one_sign(), keywords={"scale": 0.01})


def test_sums_that_keep_the_worth_of_what_was_multiplied_are_found(by_tf32, monkeypatch):
    right = Variant.worth.fget

    def worth(variant):
        return 1.0 if worth.of_sums else right(variant)

    def columns(self, sums, row):
        worth.of_sums = True
        found = list(_columns(self, sums, row))
        worth.of_sums = False
        return found

    worth.of_sums, _columns = False, shares._ByTensorCores.columns
    monkeypatch.setattr(Variant, "worth", property(worth))
    monkeypatch.setattr(shares._ByTensorCores, "columns", columns)
    assert not is_right()


def test_neighbours_in_another_order_are_found(by_tf32, monkeypatch):
    right = ThreeTf32.neighbours

    def neighbours(self, m, runs, half):
        return right(self, m, runs[::-1], half)

    monkeypatch.setattr(ThreeTf32, "neighbours", neighbours)
    assert not is_right()


@pytest.mark.parametrize("step", [0, 1])
def test_a_special_of_half_of_a_share_that_is_forgotten_is_found(step, by_tf32, monkeypatch):
    right = ThreeTf32.flags

    def flags(self, m, word, k):
        return right(self, m, word * 0 if int(k) == step else word, k)

    monkeypatch.setattr(ThreeTf32, "flags", flags)
    query, key, value = drawn()
    value[0, 1, 137, 3] = np.nan  # of the other half than source 128
    value[0, 1, 128, 3] = 0.0 if step else np.nan
    assert not is_right(arrays=(query, key, value))


def test_a_warp_that_takes_the_weights_of_another_is_found(by_fma, monkeypatch):
    right = FmaDecoding.weights_of
    monkeypatch.setattr(FmaDecoding, "weights_of", lambda self, warp: right(self, warp * 0))
    with suppress(Fault):
        assert not is_right()


def test_a_share_that_begins_elsewhere_is_found(by_fma, monkeypatch):
    score, add = fma.score_products, fma.add_products

    def score_first(m, variant, key, source, sources):
        return score(m, variant, key, source * 0, sources)

    def add_first(m, variant, tiles, sources, sums, *, careful):
        return add(m, variant, tiles, (sources[0] * 0, sources[1]), sums, careful=careful)

    for name, wrong in (("score_products", score_first), ("add_products", add_first)):
        with monkeypatch.context() as context:
            context.setattr(fma, name, wrong)
            assert not is_right(), name


def test_a_hidden_weight_that_nobody_can_tell_from_a_small_one_is_found(by_fma, monkeypatch):
    monkeypatch.setattr(fma, "store_weights", unmarking(fma.store_weights))
    assert not is_right()


def test_columns_past_the_last_that_have_no_room_are_found(by_fma, monkeypatch):
    monkeypatch.setattr(FmaDecoding, "part_width", property(lambda self: self.E))
    with pytest.raises(Fault, match=r"two threads write to one place at once|another's write"):
        is_right()


@of_each_product
@pytest.mark.parametrize("outweighing", [200, 300])
def test_an_infinity_that_a_later_weight_outweighs_and_that_is_lost_is_found(
    asked, outweighing, monkeypatch
):
    query, key, value = draw(Sizes(1, 1, 1, 1, 310, 32, 32), np.float32, seed=4)
    key[0, 0, outweighing] = 30 * query[0, 0, 0]
    value[0, 0, 5, 3] = np.inf
    assert is_right(arrays=(query, key, value), keywords={})
    monkeypatch.setattr(softmax, "_LEAST", 0.0)
    assert not is_right(arrays=(query, key, value), keywords={})


@of_each_product
def test_the_kernels_of_shared_columns_that_mutants_are_made_of_are_right(asked):
    assert is_right(arrays=wide(), keywords=SLIDING)


@of_each_product
def test_a_missing_barrier_is_found_where_warps_share_columns(asked):
    machine = leaving_out("barrier")
    assert is_right(machine, wide(), SLIDING)
    for which in range(max(machine.counts)):
        with pytest.raises(Fault, match="no barrier separates"):
            is_right(leaving_out("barrier", which), wide(), SLIDING)


@of_each_product
@pytest.mark.parametrize("name", OTHER_WARPS)
def test_columns_that_are_another_warps_are_found(name, asked, monkeypatch):
    right, other = Decoding.run_of, OTHER_WARPS[name]
    monkeypatch.setattr(Decoding, "run_of", lambda v, tile, warp: right(v, tile, other(warp)))
    assert not is_right(arrays=wide(), keywords=SLIDING)


@of_each_product
@pytest.mark.parametrize("name", OTHER_WARPS)
def test_a_part_of_another_warps_columns_is_found(name, asked, monkeypatch):
    right, variant = decoding.read_part, decoding_of(as_problem(*wide())[0])
    size = ROWS * variant.part_room

    def read_part(load, start, at, numbers):
        warp = (start - variant.ring) // size
        apart = (OTHER_WARPS[name](warp) - warp) * size
        return right(load, start + apart, at + apart, numbers)

    monkeypatch.setattr(decoding, "read_part", read_part)
    assert not is_right(arrays=wide(), keywords=SLIDING)


@of_each_product
def test_columns_of_one_warp_of_two_that_are_left_out_are_found(asked, monkeypatch):
    right, chunks = decoding._merge_warps, WIDE.E // 2 // 8

    def merge_warps(m, variant, work, item):
        right(m, variant, work, item - item // chunks % 2 * chunks)

    monkeypatch.setattr(decoding, "_merge_warps", merge_warps)
    with pytest.raises(Fault, match="an output was written twice"):
        is_right(arrays=wide(), keywords=SLIDING)


def test_a_special_of_another_warps_columns_is_found(by_tf32, monkeypatch):
    right = shares.add_specials

    def add_specials(m, variant, kinds, *others):
        start = kinds.start ^ (variant.held * variant.size)
        return right(m, variant, kinds._replace(start=start), *others)

    monkeypatch.setattr(shares, "add_specials", add_specials)
    assert not is_right(arrays=wide(), keywords=SLIDING)


@of_each_product
def test_a_share_that_is_another_warps_is_found(asked, monkeypatch):
    monkeypatch.setattr(Decoding, "share", lambda variant, warp: warp % variant.runs)
    assert not is_right(arrays=wide(), keywords=SLIDING)
