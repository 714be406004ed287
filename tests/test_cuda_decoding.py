"""Decoding on CUDA: the kernels' own source, run by NumPy twins, against the float64 reference."""

import numpy as np
import pytest

from material.twins import KINDS
from mhakit.api.arguments import as_problem
from mhakit.backends import reference
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import decoding, decoding_refusal
from mhakit.backends.cuda.tiles.call import ASKED
from mhakit.backends.cuda.tiles.segments import SEGMENT, decoding_of
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import Sizes, assert_within, budget, draw

SIZES = Sizes(2, 4, 2, 3, SEGMENT + 44, 32, 32)


@pytest.fixture(params=["bfloat16", "3xtf32", "fma"])
def dtype(request, monkeypatch):
    """What is decoded, and of float32 each way to multiply, asked for as a user does."""
    kind, asked = KINDS[request.param]
    monkeypatch.setenv(ASKED, asked)
    return kind


def distant(score, b, h, t, s, slope):
    return score - slope * type(score)(abs(t - s) + h)


def even(score, b, h, t, s):
    return score if (s + t) % 2 == 0 else type(score)(-np.inf)


def random(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def mask_for(sizes):
    mask = np.random.default_rng(8).random((sizes.B, sizes.H, sizes.T, sizes.S)) < 0.6
    mask[0, 0, 2] = False
    return mask


S = SIZES.S
SINKS = np.array([0.25, -1.5, 3.0, -np.inf], np.float32)
KEYWORDS = {
    "dense": {},
    "causal": {"causal": "bottom_right"},
    "window": {"window": (40, 9), "query_offset": [250, -7]},
    "lengths": {"key_lengths": [S, 70]},
    "nothing": {"key_lengths": [0, 1]},
    "bias": {"bias": random(1, 4, 3, S)},
    "mask": {"mask": mask_for(SIZES)},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": SINKS, "key_lengths": [S, 0]},
    "score_mod": {"score_mod": distant, "score_args": (np.float32(0.02),)},
    "all": {
        "causal": "bottom_right", "window": (160, None), "key_lengths": [S - 9, 90],
        "bias": random(2, 1, 1, S), "mask": mask_for(SIZES), "softcap": 3.0, "sinks": SINKS,
        "score_mod": distant, "score_args": (np.float32(0.02),), "scale": 0.3,
    },
}  # fmt: skip


def decode(arrays, machine=Twin, **keywords):
    problem, _ = as_problem(*arrays, **keywords)
    assert decoding_refusal(problem, (8, 0)) is None
    return run_twin(problem, decoding_of(problem), machine=machine)


def assert_right(sizes, dtype, **keywords):
    arrays = draw(sizes, dtype, seed=11)
    output, lse = decode(arrays, **keywords)
    expected, expected_lse = budget("attention", *arrays, **keywords)
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")


def assert_same_bits(some, others):
    for one, other in zip(some, others, strict=True):
        kind = f"u{one.itemsize}"
        np.testing.assert_array_equal(one.view(kind), np.ascontiguousarray(other).view(kind))


@pytest.mark.parametrize("name", KEYWORDS)
def test_every_keyword_stays_in_the_budget(name, dtype):
    assert_right(SIZES, dtype, **KEYWORDS[name])


@pytest.mark.parametrize("dtype", KINDS, indirect=True)
@pytest.mark.parametrize("width", [32, 64, 80, 96, 128, 256])
def test_every_width_stays_in_the_budget(width, dtype):
    assert_right(Sizes(1, 2, 1, 1, SEGMENT + 1, width, width), dtype, causal="bottom_right")


@pytest.mark.parametrize(("D", "E"), [(64, 128), (128, 64), (256, 32), (96, 80), (80, 256)])
def test_values_may_have_another_width(D, E, dtype):
    assert_right(Sizes(1, 1, 1, 2, SEGMENT + 70, D, E), dtype, window=(100, 0), query_offset=280)


@pytest.mark.parametrize("S", [1, 33, 63, 64, 65, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 65])
def test_remainders_of_tiles_and_segments_stay_in_the_budget(S, dtype):
    assert_right(Sizes(1, 1, 1, 2, S, 32, 32), dtype, causal="bottom_right")


@pytest.mark.parametrize("by", [-1, 0, 1])
def test_spans_that_begin_and_end_at_the_edge_of_a_segment_stay_in_the_budget(by, dtype):
    first, position = SEGMENT + by, 2 * SEGMENT - 1 + by
    sizes = Sizes(1, 1, 1, 1, 3 * SEGMENT, 32, 32)
    assert_right(sizes, dtype, window=(position - first, 0), query_offset=position)


@pytest.mark.parametrize(("H", "G", "T"), [(16, 1, 1), (2, 2, 16), (3, 1, 5), (5, 1, 3), (1, 1, 1)])
def test_rows_of_all_heads_and_targets_find_their_places(H, G, T, dtype):
    bias = random(1, H, T, 90)
    sinks = random(H)
    sizes = Sizes(1, H, G, T, 90, 32, 32)
    assert_right(sizes, dtype, bias=bias, sinks=sinks, causal="bottom_right")


def test_no_source_or_no_target_is_no_trouble(dtype):
    for T, sources in ((3, 0), (0, 5)):
        output, lse = decode(draw(Sizes(1, 2, 1, T, sources, 64, 64), dtype))
        assert not output.astype(float).any()
        assert (lse == -np.inf).all()


def test_a_row_has_the_same_bits_whatever_is_around_it(dtype):
    query, key, value = draw(Sizes(2, 4, 2, 4, 520, 32, 32), dtype, seed=6)
    keywords = {"window": (300, 0), "softcap": 4.0, "sinks": SINKS}
    whole = decode((query, key, value), **keywords, query_offset=516)
    for b, h, t in ((0, 0, slice(0, 1)), (1, 3, slice(1, 4))):
        g = slice(h // 2, h // 2 + 1)
        alone = query[b : b + 1, h : h + 1, t], key[b : b + 1, g], value[b : b + 1, g]
        keywords["sinks"] = SINKS[h : h + 1]
        part = decode(alone, **keywords, query_offset=516 + t.start)
        assert_same_bits([x[0, 0] for x in part], [x[b, h, t] for x in whole])


def test_sources_that_do_not_exist_change_no_bit_and_no_sum_of_theirs_is_made(dtype):
    for count in (60, SEGMENT, SEGMENT + 9):
        query, key, value = draw(Sizes(1, 2, 1, 2, count, 32, 32), dtype, seed=2)
        short = decode((query, key, value), sinks=SINKS[:2])
        more = [np.pad(x, ((0, 0), (0, 0), (0, 600), (0, 0))) for x in (key, value)]
        for x in more:
            x[:, :, count:] = np.nan
        assert_same_bits(short, decode((query, *more), sinks=SINKS[:2], key_lengths=[count]))


FEW = Sizes(2, 2, 1, 3, S, 32, 32)
HIDING = {
    "causal": {"causal": "bottom_right"},
    "window": {"window": (30, 9), "query_offset": 250},
    "lengths": {"key_lengths": [40, S]},
    "mask": {"mask": mask_for(FEW)},
    "bias of -inf": {"bias": np.where(random(1, 2, 3, S) > 0, 0, -np.inf).astype(np.float32)},
    "score_mod": {"score_mod": even},
}


def seen_by(keywords, sizes):
    """Return what is seen, (B, H, T, S), by asking the reference about scores of 0."""
    zero = np.zeros((sizes.B, sizes.H, sizes.T, 1)), np.zeros((sizes.B, sizes.G, sizes.S, 1))
    problem, _ = as_problem(*zero, None, needs_value=False, **keywords)
    scores = np.empty((sizes.B, sizes.H, sizes.T, sizes.S))
    reference.score(problem, scores)
    return scores != -np.inf


@pytest.mark.parametrize("rule", HIDING)
def test_a_hidden_source_never_reaches_the_output(rule, dtype):
    """Whoever sees the poison has it, the others keep their bits."""
    keywords, poisons = HIDING[rule], ((33, np.nan), (45, np.inf), (241, -np.inf), (S - 1, np.nan))
    query, key, value = draw(FEW, dtype, seed=9)
    clean, clean_lse = decode((query, key, value), **keywords)
    for s, poison in poisons:
        value[:, :, s, 5 : 5 + s % 7 + 1] = poison
    poisoned, lse = decode((query, key, value), **keywords)
    expected, _ = budget("attention", query, key, value, **keywords)
    assert_within(poisoned, expected, "poisoned")
    assert_same_bits([lse], [clean_lse])
    seen = seen_by(keywords, FEW)[..., [s for s, _ in poisons]]
    assert not seen.all(), "a rule that hides nothing tests nothing"
    blind = ~seen.any(axis=-1)
    assert_same_bits([poisoned[blind]], [clean[blind]])
    key[:, :, [s for s, _ in poisons]] = np.nan
    both = decode((query, key, value), **keywords)
    assert_same_bits([x[blind] for x in both], [clean[blind], clean_lse[blind]])
    assert np.isnan(both[1][~blind]).all()


@pytest.mark.parametrize("width", [32, 80, 128, 256])
def test_specials_are_sorted_out_however_many_tiles_are_under_way(width, dtype):
    query, key, value = draw(Sizes(1, 2, 1, 2, 194, width, width), dtype, seed=9)
    for s, poison in ((3, np.nan), (70, np.inf), (193, -np.inf)):
        value[0, 0, s, s % width :: 17] = poison
    output, _ = decode((query, key, value), window=(150, 0), query_offset=192)
    expected, _ = budget("attention", query, key, value, window=(150, 0), query_offset=192)
    assert_within(output, expected)
    assert np.isinf(output.astype(float)).any()


def test_infinities_of_both_signs_make_nan_for_those_who_see_both(dtype):
    query, key, value = draw(Sizes(1, 1, 1, 4, 400, 64, 64), dtype, seed=3)
    value[0, 0, 10, 7], value[0, 0, 398, 7] = np.inf, -np.inf
    output, _ = decode((query, key, value), causal="bottom_right")
    column = output[0, 0, :, 7].astype(float)
    assert (column[:2] == np.inf).all()
    assert np.isnan(column[2:]).all()
    assert np.isfinite(np.delete(output[0, 0], 7, axis=1).astype(float)).all()


def test_an_infinity_that_a_later_weight_outweighs_stays_one(dtype):
    """Of another tile of its segment, or of another segment."""
    for outweighing in (200, 300):
        query, key, value = draw(Sizes(1, 1, 1, 1, 310, 32, 32), dtype, seed=4)
        key[0, 0, outweighing] = 30 * query[0, 0, 0]
        value[0, 0, 5, 3] = np.inf
        output, _ = decode((query, key, value))
        assert output[0, 0, 0, 3] == np.inf
        assert np.isfinite(np.delete(output[0, 0, 0].astype(float), 3)).all()


def test_strides_and_layouts_are_read_where_they_lie(dtype):
    arrays = draw(Sizes(2, 3, 3, 2, 260, 32, 32), dtype, seed=2)
    straight = decode(arrays)
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays]
    wide = [np.repeat(x, 2, axis=1)[:, ::2] for x in turned]
    for others in (turned, wide):
        assert_same_bits(straight, decode(others, layout="BTHD"))


@pytest.mark.parametrize(("length", "E"), [(SEGMENT + 40, 32), (70, 32), (70, 256)])
def test_every_key_and_value_that_is_seen_is_read_once_and_no_other(length, E, dtype):
    moved = []

    class Counting(Twin):
        def copy(self, shared, address, visible):
            moved.append(16 * int(np.sum(self._all(visible))))
            super().copy(shared, address, visible)

    B, H, G, T, _, D, _ = sizes = Sizes(1, 8, 2, 2, 700, 64, E)
    decode(draw(sizes, dtype), machine=Counting, key_lengths=[length])
    queries = -(-length // SEGMENT) * B * H * T * D
    assert sum(moved) == (B * G * length * (D + E) + queries) * dtype.itemsize


def test_tiles_that_nobody_sees_are_not_begun(dtype, monkeypatch):
    begun, right = [], decoding.hides

    def hides(m, variant, place, tile):
        begun.append(int(tile) * variant.sources)
        return right(m, variant, place, tile)

    monkeypatch.setattr(decoding, "hides", hides)
    arrays = draw(Sizes(1, 2, 1, 2, 900, 32, 32), dtype)
    decode(arrays, window=(399, 0), query_offset=699)
    # sources 300 to 700, in the second and third of four segments
    apart = 64 if dtype.itemsize == 2 else 32
    assert begun == [*range(300 // apart * apart, 701, apart)]
