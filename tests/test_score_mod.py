"""score_mod: a caller's scalar function compiled into the kernel."""

import math
import operator

import numba
import numpy as np
import pytest

import mhakit
from material.score_mods import alibi
from material.simulation import SIMULATED
from mhakit import CompileError
from mhakit.problem import computation_dtype
from mhakit.testing import Sizes, assert_within, budget, draw

SIZES = Sizes(2, 4, 2, 3, 5, 4, 3) if SIMULATED else Sizes(2, 4, 2, 40, 70, 16, 12)


def relative_position(score, b, h, t, s, table):
    """Shaw, Uszkoreit and Vaswani, arXiv:1803.02155, as a learned bias per clipped distance."""
    reach = table.shape[1] // 2
    distance = min(max(s - t, -reach), reach)
    return score + table[h, distance + reach]


def tanh_cap(score, b, h, t, s, cap):
    """Gemma 2, arXiv:2408.00118, section 2: scores within +-cap."""
    return cap * np.tanh(score / cap)


EXAMPLES = {
    "alibi": (alibi, lambda real: (2.0 ** -np.arange(1, 5, dtype=real),)),
    "relative position": (
        relative_position,
        lambda real: (np.random.default_rng(0).standard_normal((4, 17)).astype(real),),
    ),
    "tanh": (tanh_cap, lambda real: (real.type(1.5),)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples_stay_in_the_budget(name, dtype):
    score_mod, make_args = EXAMPLES[name]
    args = make_args(computation_dtype(dtype))
    arrays = draw(SIZES, dtype)
    keywords = {"score_mod": score_mod, "score_args": args, "causal": "bottom_right"}
    expected, expected_lse = budget("attention", *arrays, **keywords)
    output, lse = mhakit.attention(*arrays, **keywords, return_lse=True)
    assert_within(output, expected)
    assert_within(lse, expected_lse, "lse")
    (expected,) = budget("attention_weights", *arrays[:2], **keywords)
    assert_within(mhakit.attention_weights(*arrays[:2], **keywords), expected, "weights")


def test_alibi_equals_its_bias_and_tanh_equals_softcap(backend):
    arrays = draw(SIZES, np.float32)
    slopes = 2.0 ** -np.arange(1, 5, dtype=np.float32)
    distance = np.abs(np.arange(SIZES.T)[:, None] - np.arange(SIZES.S)).astype(np.float32)
    by_mod = mhakit.attention(*arrays, score_mod=alibi, score_args=(slopes,), backend=backend)
    by_bias = mhakit.attention(*arrays, bias=-slopes[:, None, None] * distance, backend=backend)
    np.testing.assert_allclose(by_mod, by_bias, atol=2e-6)
    by_mod = mhakit.attention(
        *arrays, score_mod=tanh_cap, score_args=(np.float32(2),), backend=backend
    )
    by_cap = mhakit.attention(*arrays, softcap=2.0, backend=backend)
    np.testing.assert_allclose(by_mod, by_cap, atol=2e-6)


def test_it_is_told_batch_head_position_and_source():
    query, key, _ = draw(SIZES, np.float64)

    def address(score, b, h, t, s):
        return type(score)(b * 1_000_000 + h * 100_000 + t * 1000 + s)

    scores = mhakit.attention_scores(query, key, score_mod=address, query_offset=[5, -3])
    b, h, t, s = np.ogrid[:2, :4, :40, :70]
    position = t + np.array([5, -3])[:, None, None, None]
    np.testing.assert_array_equal(scores, b * 1_000_000 + h * 100_000 + position * 1000 + s)


@pytest.mark.parametrize("function", [operator.add, operator.sub])
def test_positions_are_told_wherever_they_are(function):
    edges = [0, 2**30, -(2**30), 2**31, -(2**31), 2**32, 2**40, -(2**40)]
    across, behind = [edge - SIZES.T // 2 for edge in edges], [edge + 1 for edge in edges]
    offsets = np.array(across + behind)
    query, key, _ = draw(SIZES._replace(B=len(offsets)), np.float64)

    def told(score, b, h, t, s):
        return type(score)(function(t, s))

    scores = mhakit.attention_scores(query, key, score_mod=told, query_offset=offsets)
    t, s = offsets[:, None, None, None] + np.arange(SIZES.T)[:, None], np.arange(SIZES.S)
    np.testing.assert_array_equal(scores, np.broadcast_to(function(t, s), scores.shape))


def test_what_it_returns_for_a_hidden_source_is_discarded():
    query, key, _ = draw(SIZES, np.float32)

    def ones(score, b, h, t, s):
        return type(score)(1)

    bias = np.zeros((40, 70), np.float32)
    bias[:, ::2] = -np.inf
    scores = mhakit.attention_scores(query, key, bias=bias, causal="top_left", score_mod=ones)
    s, t = np.arange(70), np.arange(40)[:, None]
    hidden = (s % 2 == 0) | (s > t)
    np.testing.assert_array_equal(
        scores, np.broadcast_to(np.where(hidden, -np.inf, 1), scores.shape)
    )


def test_float32_stays_float32_in_a_mod_that_says_so():
    query, key, _ = draw(SIZES, np.float32)
    kinds = []

    def record(score, b, h, t, s):
        kinds.append(type(score))
        return score

    mhakit.attention_scores(query[:, :, :2], key, score_mod=record, backend="reference")
    assert set(kinds) == {np.float64}, "the reference computes in float64"
    assert (
        mhakit.attention_scores(
            query, key, score_mod=alibi, score_args=(np.ones(4, np.float32),)
        ).dtype
        == np.float32
    )


@numba.njit
def compiled_elsewhere(score, b, h, t, s):
    return score / 2


def test_a_function_that_is_compiled_already_is_taken(backend):
    query, key, _ = draw(SIZES, np.float64)
    halved = mhakit.attention_scores(query, key, score_mod=compiled_elsewhere, backend=backend)
    np.testing.assert_allclose(halved, mhakit.attention_scores(query, key) / 2)


def test_dividing_by_zero_gives_inf_and_ends_nothing():
    query, key, _ = draw(SIZES, np.float64)

    def reciprocal(score, b, h, t, s):
        return type(score)(1) / type(score)(s)

    scores = mhakit.attention_scores(query, key, score_mod=reciprocal)
    assert (scores[..., 0] == np.inf).all()


def test_a_whole_number_may_be_returned():
    query, key, _ = draw(SIZES, np.float32)
    scores = mhakit.attention_scores(query, key, score_mod=lambda score, b, h, t, s: s)
    np.testing.assert_array_equal(scores[0, 0, 0], np.arange(70, dtype=np.float32))


def of_text(score, b, h, t, s):
    return score + "x"


def of_too_few(score, b, h):
    return score


def returns_nothing(score, b, h, t, s):
    pass


def returns_two(score, b, h, t, s):
    return score, s


def raises(score, b, h, t, s):
    if s > 3:
        raise ValueError("no")
    return score


def unknown_name(score, b, h, t, s):
    return score + not_defined_anywhere  # noqa: F821


def takes_a_table(score, b, h, t, s, table):
    return score + table["bias"]


MAY = r".*it may use arithmetic, comparisons, if, math\.\* and np\.\*"
WRONG = {
    "text": (of_text, (), r"score_mod of_text must be a scalar function \(score, b, h, t, s, \*score_args\) -> score that compiles, got "),
    "too few arguments": (of_too_few, (), "score_mod of_too_few must be a scalar function .* got "),
    "too many arguments": (alibi, (1.0, 2.0), "score_mod alibi must be a scalar function .* got "),
    "nothing returned": (returns_nothing, (), "score_mod returns_nothing must return one real number, got none"),
    "two returned": (returns_two, (), "score_mod returns_two must return one real number, got "),
    "raises": (raises, (), "score_mod raises must raise nothing, got a raise statement"),
    "unknown name": (unknown_name, (), "score_mod unknown_name must be a scalar function .* got .*not_defined_anywhere"),
    "a dict": (takes_a_table, ({"bias": 1.0},), "score_mod takes_a_table must be a scalar function .* got "),
    "no function of Python": (math.fabs, (), "score_mod fabs must be a scalar function .* got "),
}  # fmt: skip


@pytest.mark.parametrize("function", ["attention", "attention_scores", "attention_weights"])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_compile_is_named_and_told_what_it_may_do(name, function):
    score_mod, args, message = WRONG[name]
    query, key, value = draw(SIZES, np.float32)
    arrays = (query, key, value) if function == "attention" else (query, key)
    with pytest.raises(CompileError, match=message + MAY):
        getattr(mhakit, function)(*arrays, score_mod=score_mod, score_args=args)
