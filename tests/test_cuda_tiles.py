"""The tile kernels' own source, run by NumPy twins, against the float64 reference."""

import ml_dtypes
import numpy as np
import pytest

from mhakit.api.arguments import as_problem
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import refusal
from mhakit.backends.cuda.tiles.call import variant_of
from mhakit.backends.cuda.tiles.memory import Fault
from mhakit.testing import Sizes, assert_within, budget, draw

HALVES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}


@pytest.fixture(params=list(HALVES))
def half(request):
    """Each dtype of the tensor cores."""
    return HALVES[request.param]


def distant(score, b, h, t, s, slope):
    return score - slope * type(score)(abs(t - s) + h)


def random(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def mask_for(sizes):
    mask = np.random.default_rng(8).random((sizes.B, sizes.H, sizes.T, sizes.S)) < 0.6
    mask[0, 0, 3] = False
    return mask


SIZES = Sizes(2, 4, 2, 37, 150, 64, 64)
KEYWORDS = {
    "dense": {},
    "causal": {"causal": "top_left"},
    "bottom right": {"causal": "bottom_right"},
    "window": {"window": (20, 9), "query_offset": [50, -7]},
    "lengths": {"key_lengths": [150, 70]},
    "nothing": {"key_lengths": [0, 1]},
    "bias": {"bias": random(1, 4, 37, 150)},
    "mask": {"mask": mask_for(SIZES)},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": np.array([0.25, -1.5, 3.0, -np.inf], np.float32)},
    "score_mod": {"score_mod": distant, "score_args": (np.float32(0.02),)},
    "scale": {"scale": 0.3},
    "all": {
        "causal": "bottom_right", "window": (60, None), "key_lengths": [140, 90],
        "bias": random(2, 1, 1, 150), "mask": mask_for(SIZES), "softcap": 3.0,
        "sinks": np.array([0.25, -1.5, 3.0, -np.inf], np.float32),
        "score_mod": distant, "score_args": (np.float32(0.02),),
    },
}  # fmt: skip


def assert_right(sizes, dtype, keywords, variant=None):
    arrays = draw(sizes, dtype, seed=11)
    problem, _ = as_problem(*arrays, **keywords)
    assert refusal(problem, (8, 0)) is None
    output, lse = run_twin(problem, variant)
    expected, expected_lse = budget("attention", *arrays, **keywords)
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")


@pytest.mark.parametrize("name", KEYWORDS)
def test_every_keyword_stays_in_the_budget(name):
    assert_right(SIZES, HALVES["bfloat16"], KEYWORDS[name])


@pytest.mark.parametrize("name", ["dense", "window", "softcap"])
def test_float16_stays_in_the_budget(name):
    assert_right(SIZES, np.float16, KEYWORDS[name])


@pytest.mark.parametrize("width", [32, 64, 80, 96, 128, 256])
def test_every_width_stays_in_the_budget(width, half):
    assert_right(Sizes(1, 2, 1, 21, 130, width, width), half, {"causal": "bottom_right"})


@pytest.mark.parametrize(("D", "E"), [(64, 128), (128, 64), (32, 256), (96, 80)])
def test_values_may_have_another_width(D, E):
    assert_right(Sizes(1, 1, 1, 17, 70, D, E), HALVES["bfloat16"], {})


@pytest.mark.parametrize("T", [1, 64, 65, 128, 131])
@pytest.mark.parametrize("S", [1, 63, 64, 65, 129])
def test_remainders_of_tiles_stay_in_the_budget(T, S):
    assert_right(Sizes(1, 1, 1, T, S, 64, 64), HALVES["bfloat16"], {"causal": "bottom_right"})


def test_no_source_or_no_target_is_no_trouble():
    for T, S in ((5, 0), (0, 5)):
        arrays = draw(Sizes(1, 2, 1, T, S, 64, 64), HALVES["bfloat16"])
        problem, _ = as_problem(*arrays)
        output, lse = run_twin(problem)
        assert not output.astype(float).any()
        assert (lse == -np.inf).all()


@pytest.mark.parametrize("rows_and_warps", [(64, 4), (128, 4), (128, 8)])
@pytest.mark.parametrize("D", [64, 128])
def test_every_tile_stays_in_the_budget_and_gives_the_same_bits(D, rows_and_warps):
    rows, warps = rows_and_warps
    arrays = draw(Sizes(1, 2, 1, 140, 150, D, D), HALVES["bfloat16"], seed=5)
    problem, _ = as_problem(*arrays, window=(90, 3), query_offset=9)
    variant = variant_of(problem)._replace(rows=rows, warps=warps)
    output, lse = run_twin(problem, variant)
    expected, expected_lse = budget("attention", *arrays, window=(90, 3), query_offset=9)
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")
    again, lse_again = run_twin(problem, variant._replace(rows=64, warps=2))
    np.testing.assert_array_equal(output.view(np.uint16), again.view(np.uint16))
    np.testing.assert_array_equal(lse, lse_again)


def test_a_row_has_the_same_bits_whatever_is_around_it(half):
    query, key, value = draw(Sizes(2, 4, 2, 140, 150, 64, 64), half, seed=6)
    keywords = {"causal": "top_left", "softcap": 4.0}
    whole, whole_lse = run_twin(as_problem(query, key, value, **keywords)[0])
    for b, h, t in ((0, 0, slice(0, 1)), (1, 3, slice(70, 90)), (1, 2, slice(5, 140))):
        alone = as_problem(
            query[b : b + 1, h : h + 1, t], key[b : b + 1, h // 2 : h // 2 + 1],
            value[b : b + 1, h // 2 : h // 2 + 1], window=(None, 0), query_offset=t.start,
            softcap=4.0,
        )[0]  # fmt: skip
        part, part_lse = run_twin(alone)
        np.testing.assert_array_equal(whole[b, h, t].view(np.uint16), part[0, 0].view(np.uint16))
        np.testing.assert_array_equal(whole_lse[b, h, t], part_lse[0, 0])


def even(score, b, h, t, s):
    return score if (s + t) % 2 == 0 else type(score)(-np.inf)


HIDING = {
    "causal": {"causal": "top_left"},
    "window": {"window": (7, 9), "query_offset": 20},
    "lengths": {"key_lengths": [30, 130]},
    "mask": {"mask": mask_for(SIZES)},
    "bias of -inf": {"bias": np.where(random(1, 4, 37, 150) > 0, 0, -np.inf).astype(np.float32)},
    "score_mod": {"score_mod": even},
}


def seen_by(keywords, sizes):
    """Return what is seen, (B, H, T, S), by asking the reference about scores of 0."""
    from mhakit.backends import reference

    zero = np.zeros((sizes.B, sizes.H, sizes.T, 1)), np.zeros((sizes.B, sizes.G, sizes.S, 1))
    problem, _ = as_problem(*zero, None, needs_value=False, **keywords)
    scores = np.empty((sizes.B, sizes.H, sizes.T, sizes.S))
    reference.score(problem, scores)
    return scores != -np.inf


@pytest.mark.parametrize("rule", HIDING)
def test_a_hidden_source_never_reaches_the_output(rule):
    """Whoever sees the poison has it, the others keep their bits."""
    keywords = HIDING[rule]
    query, key, value = draw(SIZES, HALVES["bfloat16"], seed=9)
    clean, clean_lse = run_twin(as_problem(query, key, value, **keywords)[0])
    seen = seen_by(keywords, SIZES)
    key, value = key.copy(), value.copy()
    for s, poison in ((33, np.nan), (45, np.inf), (61, -np.inf), (139, np.nan)):
        value[:, :, s, 5 : 5 + s % 7 + 1] = poison
    poisoned, lse = run_twin(as_problem(query, key, value, **keywords)[0])
    expected, _ = budget("attention", query, key, value, **keywords)
    assert_within(poisoned, expected, "poisoned")
    blind = ~seen[..., [33, 45, 61, 139]].any(axis=-1)
    assert blind.any(), "a rule that hides nothing tests nothing"
    assert not blind.all(), "a poison that nobody sees tests nothing"
    np.testing.assert_array_equal(poisoned[blind].view(np.uint16), clean[blind].view(np.uint16))
    np.testing.assert_array_equal(lse, clean_lse)
    key[:, :, [33, 139]] = np.nan
    both, lse = run_twin(as_problem(query, key, value, **keywords)[0])
    np.testing.assert_array_equal(both[blind].view(np.uint16), clean[blind].view(np.uint16))
    np.testing.assert_array_equal(lse[blind], clean_lse[blind])


def test_infinities_of_both_signs_make_nan_for_those_who_see_both(half):
    query, key, value = draw(Sizes(1, 1, 1, 130, 130, 64, 64), half, seed=3)
    value[0, 0, 10, 7], value[0, 0, 100, 7] = np.inf, -np.inf
    output, _ = run_twin(as_problem(query, key, value, causal=True)[0])
    column = output[0, 0, :, 7].astype(float)
    assert np.isfinite(column[:10]).all()
    assert (column[10:100] == np.inf).all()
    assert np.isnan(column[100:]).all()
    assert np.isfinite(np.delete(output[0, 0], 7, axis=1).astype(float)).all()


def test_strides_and_layouts_are_read_where_they_lie():
    query, key, value = draw(Sizes(2, 3, 3, 20, 70, 64, 64), HALVES["bfloat16"], seed=2)
    straight, _ = run_twin(as_problem(query, key, value)[0])
    turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (query, key, value)]
    wide = [np.repeat(x, 2, axis=1)[:, ::2] for x in turned]
    for arrays in (turned, wide):
        problem, _ = as_problem(*arrays, layout="BTHD")
        assert refusal(problem, (9, 0)) is None
        output, _ = run_twin(problem)
        np.testing.assert_array_equal(output.view(np.uint16), straight.view(np.uint16))


def ask(sizes=SIZES, dtype=np.float16, capability=(9, 0), change=None, **keywords):
    arrays = draw(sizes, dtype)
    arrays = arrays if change is None else change(*arrays)
    return refusal(as_problem(*arrays, **keywords)[0], capability)


def test_what_the_tile_kernels_do_not_take_has_a_reason():
    assert ask() is None
    assert ask(capability=(7, 5)) == (
        "the device has compute capability 7.5, tile kernels of float16 need 8.0"
    )
    assert ask(dtype=np.float64) == (
        "the dtype is float64, tile kernels take bfloat16, float16 and float32"
    )
    widths = "tile kernels of float16 take 32, 64, 80, 96, 128, 256"
    assert ask(SIZES._replace(D=48)) == f"D is 48, {widths}"
    assert ask(SIZES._replace(E=16)) == f"E is 16, {widths}"
    assert ask(scale=-1.0) == "scale is -1.0, tile kernels take a finite one above 0"
    assert ask(bias=np.zeros((1, 150))) == "bias is float64, tile kernels read float32"
    assert ask(change=lambda q, k, v: (q[..., ::-1], k, v)) == (
        "neighbours along the last axis of query are -2 bytes apart"
    )
    assert ask(sinks=np.zeros(4)) == "sinks is float64, tile kernels read float32"
    assert ask(sinks=np.zeros(8, np.float32)[::2]) == "neighbours of sinks are 8 bytes apart"
    wide = SIZES._replace(D=256)
    assert ask(wide, capability=(8, 0)) is None
    assert ask(wide._replace(E=256), capability=(8, 6)) == (
        "D = 256 and E = 256 take 114688 bytes of shared memory, a block of compute capability "
        "8.6 has 101376"
    )
    assert ask(wide, mask=mask_for(wide)) == (
        "a mask at a width of 256 does not fit the registers of a tile kernel"
    )
    odd = np.zeros((2, 2, 150, 68), np.float16)
    assert ask(change=lambda q, k, v: (q, odd[..., :64], v)) == (
        "rows of key do not begin at multiples of 16 bytes"
    )


def test_too_long_a_sequence_is_refused_by_name():
    x = np.broadcast_to(np.float16(1), (1, 1, 2**28 + 1, 64))
    problem, _ = as_problem(np.ones((1, 1, 1, 64), np.float16), x[:, :, :4], x[:, :, :4])
    assert "S is 268435457, tile kernels take 268435456" in str(
        refusal(problem._replace(key=x, value=x), (9, 0))
    )


def test_an_unaligned_query_is_a_fault():
    problem, _ = as_problem(*draw(Sizes(1, 1, 1, 5, 5, 64, 64), np.float16))
    with pytest.raises(Fault, match="from an address that is no multiple of 16"):
        run_twin(problem, skew=2)
