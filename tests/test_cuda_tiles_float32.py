"""Float32's tile kernels, run by NumPy twins: three products of TF32, and fma."""

import numpy as np
import pytest

from mhakit.api.arguments import as_problem
from mhakit.backends import reference
from mhakit.backends.cuda.check.twins import run_twin
from mhakit.backends.cuda.tiles import refusal
from mhakit.backends.cuda.tiles.call import ASKED, variant_of
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.memory import GlobalMemory
from mhakit.backends.cuda.tiles.product import ThreeTf32
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.errors import ParameterError
from mhakit.testing import Sizes, assert_within, budget, draw

LARGEST = np.finfo(np.float32).max


@pytest.fixture(params=["3xtf32", "fma"])
def product(request, monkeypatch):
    """Each way to multiply, asked for as a user does."""
    monkeypatch.setenv(ASKED, "fma" if request.param == "fma" else "")
    return request.param


def distant(score, b, h, t, s, slope):
    return score - slope * type(score)(abs(t - s) + h)


def even(score, b, h, t, s):
    return score if (s + t) % 2 == 0 else type(score)(-np.inf)


def random(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def mask_for(sizes):
    mask = np.random.default_rng(8).random((sizes.B, sizes.H, sizes.T, sizes.S)) < 0.6
    mask[0, 0, 3] = False
    return mask


SIZES = Sizes(2, 2, 1, 37, 70, 32, 32)
SINKS = np.array([-1.5, -np.inf], np.float32)
KEYWORDS = {
    "dense": {},
    "causal": {"causal": "bottom_right"},
    "window": {"window": (20, 9), "query_offset": [50, -7]},
    "lengths": {"key_lengths": [70, 35]},
    "nothing": {"key_lengths": [0, 1]},
    "bias": {"bias": random(1, 2, 37, 70)},
    "mask": {"mask": mask_for(SIZES)},
    "softcap": {"softcap": 2.0},
    "sinks": {"sinks": SINKS},
    "score_mod": {"score_mod": distant, "score_args": (np.float32(0.02),)},
    "scale": {"scale": 0.5},
    "all": {
        "causal": "bottom_right", "window": (60, None), "key_lengths": [65, 40],
        "bias": random(2, 1, 1, 70), "mask": mask_for(SIZES), "softcap": 3.0, "sinks": SINKS,
        "score_mod": distant, "score_args": (np.float32(0.02),),
    },
}  # fmt: skip


def assert_right(arrays, keywords, variant=None):
    problem, _ = as_problem(*arrays, **keywords)
    assert refusal(problem, (8, 0)) is None
    output, lse = run_twin(problem, variant)
    expected, expected_lse = budget("attention", *arrays, **keywords)
    assert_within(output, expected, "output")
    assert_within(lse, expected_lse, "lse")


@pytest.mark.parametrize(
    ("product", "name"),
    [
        *(("3xtf32", name) for name in KEYWORDS),
        *(("fma", name) for name in ("window", "lengths", "nothing", "sinks", "all")),
    ],
    indirect=["product"],
)
def test_every_keyword_stays_in_the_budget(name, product):
    assert_right(draw(SIZES, np.float32, seed=11), KEYWORDS[name])


@pytest.mark.parametrize(
    ("D", "E"), [(64, 64), (80, 80), (96, 96), (128, 128), (32, 128), (96, 64)]
)
def test_every_width_stays_in_the_budget(D, E, product):
    arrays = draw(Sizes(1, 1, 1, 21, 130, D, E), np.float32, seed=11)
    assert_right(arrays, {"causal": "bottom_right"})


@pytest.mark.parametrize(("T", "S"), [(1, 1), (64, 32), (65, 31), (131, 33)])
def test_remainders_of_tiles_stay_in_the_budget(T, S, product):
    arrays = draw(Sizes(1, 1, 1, T, S, 32, 32), np.float32, seed=11)
    assert_right(arrays, {"causal": "bottom_right"})


def test_no_source_or_no_target_is_no_trouble(product):
    for T, S in ((5, 0), (0, 5)):
        output, lse = run_twin(as_problem(*draw(Sizes(1, 2, 1, T, S, 64, 64), np.float32))[0])
        assert not output.any()
        assert (lse == -np.inf).all()


def test_many_sources_of_one_sign_stay_in_the_budget(product):
    """What tensor cores cut off leans to one side, and adds up where it is not seen to."""
    query, key, value = draw(Sizes(1, 1, 1, 3, 1000, 32, 32), np.float32, seed=1)
    assert_right((query, np.abs(key), np.abs(value)), {"scale": 0.01})


def test_a_row_has_the_same_bits_whatever_is_around_it(product):
    query, key, value = draw(Sizes(2, 2, 1, 140, 70, 32, 32), np.float32, seed=6)
    keywords = {"causal": "top_left"}
    whole, whole_lse = run_twin(as_problem(query, key, value, **keywords)[0])
    for b, h, t in ((0, 0, slice(0, 1)), (1, 1, slice(60, 90)), (0, 1, slice(5, 140))):
        alone = as_problem(
            query[b : b + 1, h : h + 1, t], key[b : b + 1], value[b : b + 1], window=(None, 0),
            query_offset=t.start,
        )[0]  # fmt: skip
        part, part_lse = run_twin(alone)
        np.testing.assert_array_equal(whole[b, h, t].view(np.uint32), part[0, 0].view(np.uint32))
        np.testing.assert_array_equal(whole_lse[b, h, t], part_lse[0, 0])


HIDING = {
    "causal": {"causal": "top_left"},
    "window": {"window": (7, 9), "query_offset": 20},
    "lengths": {"key_lengths": [10, 70]},
    "mask": {"mask": mask_for(SIZES)},
    "bias of -inf": {"bias": np.where(random(1, 2, 37, 70) > 0, 0, -np.inf).astype(np.float32)},
    "score_mod": {"score_mod": even},
}
POISON = ((13, np.nan), (25, np.inf), (35, -np.inf), (69, np.nan))


def seen_by(keywords, sizes):
    """Return what is seen, (B, H, T, S), by asking the reference about scores of 0."""
    zero = np.zeros((sizes.B, sizes.H, sizes.T, 1)), np.zeros((sizes.B, sizes.G, sizes.S, 1))
    problem, _ = as_problem(*zero, None, needs_value=False, **keywords)
    scores = np.empty((sizes.B, sizes.H, sizes.T, sizes.S))
    reference.score(problem, scores)
    return scores != -np.inf


@pytest.mark.parametrize(
    ("product", "rule"),
    [
        *(("3xtf32", rule) for rule in HIDING if rule != "lengths"),
        ("fma", "causal"),
        ("fma", "mask"),
        ("fma", "lengths"),
    ],
    indirect=["product"],
)
def test_a_hidden_source_never_reaches_the_output(rule, product):
    """Whoever sees the poison has it, the others keep their bits."""
    keywords = HIDING[rule]
    query, key, value = draw(SIZES, np.float32, seed=9)
    clean, clean_lse = run_twin(as_problem(query, key, value, **keywords)[0])
    seen = seen_by(keywords, SIZES)
    key, value = key.copy(), value.copy()
    for s, poison in POISON:
        value[:, :, s, 5 : 5 + s % 7 + 1] = poison
    poisoned, lse = run_twin(as_problem(query, key, value, **keywords)[0])
    expected, _ = budget("attention", query, key, value, **keywords)
    assert_within(poisoned, expected, "poisoned")
    blind = ~seen[..., [s for s, _ in POISON]].any(axis=-1)
    assert blind.any(), "a rule that hides nothing tests nothing"
    assert not blind.all(), "a poison that nobody sees tests nothing"
    np.testing.assert_array_equal(poisoned[blind].view(np.uint32), clean[blind].view(np.uint32))
    np.testing.assert_array_equal(lse, clean_lse)
    key[:, :, [13, 69]] = np.nan
    key[:, :, 35, 2] = np.inf
    both, lse = run_twin(as_problem(query, key, value, **keywords)[0])
    np.testing.assert_array_equal(both[blind].view(np.uint32), clean[blind].view(np.uint32))
    np.testing.assert_array_equal(lse[blind], clean_lse[blind])


@pytest.mark.parametrize("keywords", [{}, {"causal": "top_left"}], ids=["dense", "causal"])
def test_what_no_tf32_holds_is_treated_as_float32_is(keywords, product):
    """The largest numbers are rounded up to infinity as TF32, and an infinity has no rest."""
    for which, s, special in (
        (2, 3, LARGEST), (2, 3, -LARGEST), (2, 3, 1e-42), (1, 3, np.inf), (1, 33, -np.inf),
        (1, 3, np.nan), (0, 5, np.inf), (0, 5, np.nan), (2, 3, np.inf),
    ):  # fmt: skip
        arrays = draw(Sizes(1, 1, 1, 40, 40, 32, 32), np.float32, seed=3)
        arrays[which][0, 0, s, slice(None) if which == 2 else 5] = special
        assert_right(arrays, keywords)


def test_a_score_at_the_end_of_float32_is_no_infinity(product):
    query, key, value = draw(Sizes(1, 1, 1, 6, 40, 32, 32), np.float32, seed=3)
    query[0, 0, :, 5], key[0, 0, 3, 5] = 0.5, LARGEST
    output, lse = run_twin(as_problem(query, key, value)[0])
    np.testing.assert_allclose(output[0, 0], np.broadcast_to(value[0, 0, 3], (6, 32)), rtol=3e-7)
    assert np.isfinite(lse).all()


@pytest.mark.parametrize("width", [32, 64, 80, 96, 128])
def test_no_half_warp_reads_two_values_from_one_bank(width):
    found = []

    class Recording(Twin):
        def load_pair(self, address):
            found.append(np.stack([address, address + 4], -1) // 4 % 32)
            return [address, address]

    twin = Recording("float32", 32, 0, 64, GlobalMemory(), {})
    for k in range(4):
        ThreeTf32().values(twin, Layout(width, 0, 4), np.int32(k), width // 16 - 1)
    assert len(found) == 8
    for banks in found:
        for half in banks.reshape(2, 32):
            assert len(set(half)) == 32


def test_the_parts_of_a_number_add_up_to_it():
    twin = Twin("float32", 32, 0, 64, GlobalMemory(), {})
    numbers = np.concatenate([random(28), [LARGEST, -LARGEST, 0.0, 1.0]]).astype(np.float32)
    (big,), (small,) = ThreeTf32().operand(twin, [numbers.view(np.uint32)])
    parts = [word & np.uint32(0xFFFFE000) for word in (big, small)]
    total = sum(part.view(np.float32).astype(np.float64) for part in parts)
    assert np.isfinite(total).all()
    half = numbers.astype(np.float64) / 2
    assert (np.abs(total - half) <= 2.0**-23 * np.abs(half)).all()


def test_a_twin_of_tf32_cuts_off_as_tensor_cores_do():
    """1 + 3 * 2^-24: the sum in float32 would be 1 + 2^-22, cut off it is 1 + 2^-23."""
    twin = Twin("float32", 32, 0, 64, GlobalMemory(), {})
    one, tiny = (np.full(32, x, np.float32).view(np.uint32) for x in (1.0, 2.0**-24))
    q = np.arange(32) % 4
    zero = np.uint32(0)
    a = [np.where(q < 3, one, zero), np.where(q < 3, one, zero), zero, zero]
    b = [np.where(q < 3, tiny, zero), zero]
    found = twin.multiply(a, b, [np.ones(32, np.float32)] * 4)
    for x in found:
        np.testing.assert_array_equal(x, np.float32(1 + 2.0**-23))
    for x in twin.multiply([one, one, one, one], [tiny, tiny], [np.zeros(32, np.float32)] * 4):
        np.testing.assert_array_equal(x, np.float32(2.0**-21))


def test_what_is_asked_for_by_the_environment_is_what_runs(monkeypatch):
    problem, _ = as_problem(*draw(Sizes(1, 1, 1, 70, 5, 64, 64), np.float32))
    monkeypatch.delenv(ASKED, raising=False)
    assert variant_of(problem, (8, 0)).name == "float32-3xtf32-D64-64x32-4w"
    assert variant_of(problem, (7, 5)).name == "float32-fma-D64-64x32-4w"
    monkeypatch.setenv(ASKED, "fma")
    assert variant_of(problem, (8, 0)).name == "float32-fma-D64-128x32-4w"
    half, _ = as_problem(*draw(Sizes(1, 1, 1, 5, 5, 64, 64), np.float16))
    assert variant_of(half, (8, 0)).product == "mma"
    monkeypatch.setenv(ASKED, "tf32")
    with pytest.raises(ParameterError, match="MHAKIT_CUDA_FLOAT32 must be fma or not set, got 'tf"):
        variant_of(problem, (8, 0))


def test_what_float32_kernels_do_not_take_has_a_reason(product):
    def ask(D, capability):
        return refusal(as_problem(*draw(SIZES._replace(D=D), np.float32))[0], capability)

    assert ask(128, (7, 5)) is None
    assert ask(256, (9, 0)) == ("D is 256, tile kernels of float32 take 32, 64, 80, 96, 128")
    assert ask(64, (6, 1)) == (
        "the device has compute capability 6.1, tile kernels of float32 need 7.0"
    )
