"""mhakit's own score modifications, by name: formula, budget, and nothing compiled twice.

A kernel with a function compiled into it takes seconds to compile and is not kept on disk: all
that runs on the CPU backend here runs the same few, in float32: attention for ALiBi, scores for the
others.
"""

import math

import numpy as np
import pytest

import mhakit
from mhakit.api.arguments import as_problem
from mhakit.backends.cpu import score_mod as compiling
from mhakit.testing import Sizes, assert_within, budget, draw

SIZES = Sizes(1, 4, 2, 21, 37, 8, 6)
RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((32, 4))
ARGS = {
    "alibi": (),
    "distance_decay": (np.array([0.5, 1.0, 1.5, 2.0]), 0.3),
    "softcap": (1.5,),
    "t5_relative_position": (TABLE,),
    "t5_relative_position_causal": (TABLE, 64),
}


def slopes_of_the_paper(H):
    """Section 3 of arXiv:2108.12409 for powers of two; between them, as its authors' code has it."""
    if H & (H - 1) == 0:
        return [2.0 ** (-8.0 * (i + 1) / H) for i in range(H)]
    lower = 2 ** (H.bit_length() - 1)
    return slopes_of_the_paper(lower) + slopes_of_the_paper(2 * lower)[::2][: H - lower]


def bucket_of(distance, buckets, furthest, causal):
    """T5's bucket of s - t, in whole numbers alone: borders are compared as powers."""
    side = buckets if causal else buckets // 2
    base = side if not causal and distance > 0 else 0
    far = max(-distance, 0) if causal else abs(distance)
    exact = side // 2
    if far < exact:
        return base + far
    wide = side - exact
    step = 0  # the largest k with exact * (furthest / exact)^(k / wide) <= far
    while step < wide - 1 and far**wide >= exact ** (wide - step - 1) * furthest ** (step + 1):
        step += 1
    return base + exact + step


def formula(name, scores, H, T, S):
    """Return what a score mod makes of scores (B, H, T, S), in plain NumPy."""
    distance = np.arange(S) - np.arange(T)[:, None]
    if name == "alibi":
        return scores - np.array(slopes_of_the_paper(H))[:, None, None] * np.abs(distance)
    if name == "distance_decay":
        rates, scale = ARGS[name]
        return scores - rates[:, None, None] * np.log(1 + scale * np.abs(distance))
    if name == "softcap":
        return 1.5 * np.tanh(scores / 1.5)
    causal = name.endswith("causal")
    furthest = 64 if causal else 128
    buckets = np.vectorize(lambda d: bucket_of(int(d), 32, furthest, causal))(distance)
    return scores + TABLE[buckets].transpose(2, 0, 1)


def in_dtype(args, dtype):
    return tuple(a.astype(dtype) if isinstance(a, np.ndarray) else a for a in args)


@pytest.mark.parametrize("name", ARGS)
def test_a_name_stands_for_the_formula_of_its_paper(name):
    query, key, _ = draw(SIZES, np.float64)
    keywords = {"score_mod": name, "score_args": ARGS[name]}
    bare = mhakit.attention_scores(query, key, backend="reference")
    expected = formula(name, bare, *query.shape[1:3], key.shape[2])
    scores = mhakit.attention_scores(query, key, **keywords, backend="reference")
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("H", [1, 3, 8, 12, 20])
def test_slopes_of_alibi_are_the_authors_for_every_number_of_heads(H):
    query = np.ones((1, H, 1, 1))
    key = np.zeros((1, H, 2, 1))
    scores = mhakit.attention_scores(query, key, score_mod="alibi", backend="reference")
    np.testing.assert_allclose(-scores[0, :, 0, 1], slopes_of_the_paper(H), rtol=1e-15)


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 5), (64, 300)])
@pytest.mark.parametrize("causal", [False, True])
def test_every_distance_falls_into_the_bucket_of_t5(buckets, furthest, causal):
    name = "t5_relative_position" + "_causal" * causal
    table = np.arange(float(buckets))[:, None]
    query, key = np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1201, 1))
    scores = mhakit.attention_scores(
        query,
        key,
        query_offset=600,
        score_mod=name,
        score_args=(table, furthest),
        backend="reference",
    )
    expected = [bucket_of(s - 600, buckets, furthest, causal) for s in range(1201)]
    np.testing.assert_array_equal(scores[0, 0, 0], expected)


def call(name, kind):
    """Return a function, its arrays and keywords: the one that is compiled for a score mod here."""
    query, key, value = draw(SIZES, kind)
    keywords = {"score_mod": name, "score_args": in_dtype(ARGS[name], np.float32)}
    keywords["causal"] = "bottom_right"
    if name == "alibi":
        return "attention", (query, key, value), keywords
    return "attention_scores", (query, key), keywords


@pytest.mark.parametrize("name", ARGS)
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_name_stays_in_the_budget(name, kind):
    function, arrays, keywords = call(name, kind)
    allowed, *_ = budget(function, *arrays, **keywords)
    for backend in ("cpu", "reference"):
        result = getattr(mhakit, function)(*arrays, **keywords, backend=backend)
        assert_within(result, allowed, backend)


@pytest.mark.parametrize("name", ARGS)
@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_the_computation_dtype_is_kept(name, real):
    query, key, _ = draw(SIZES, real)
    problem, _ = as_problem(
        query, key, None, needs_value=False, score_mod=name, score_args=ARGS[name]
    )
    function = compiling.compiled(problem)
    returned = {
        overload.signature.return_type.name
        for overload in function.overloads.values()
        if overload.signature.args[0].name == np.dtype(real).name
    }
    assert returned == {np.dtype(real).name}


@pytest.mark.parametrize("name", ARGS)
def test_a_second_call_compiles_nothing_and_has_the_same_bits(name, monkeypatch):
    function, arrays, keywords = call(name, np.float32)
    first = getattr(mhakit, function)(*arrays, **keywords)
    monkeypatch.setattr(compiling, "optimized", None)
    monkeypatch.setattr("numba.core.dispatcher._FunctionCompiler.compile", None)
    np.testing.assert_array_equal(getattr(mhakit, function)(*arrays, **keywords), first)


def test_a_name_works_in_everything_that_takes_a_score_mod():
    query, key, value = draw(SIZES, np.float32)
    for name, arrays in (
        ("attention", (query, key, value)),
        ("attention_scores", (query, key)),
        ("attention_weights", (query, key)),
    ):
        allowed, *_ = budget(name, *arrays, score_mod="alibi")
        function = getattr(mhakit, name)
        assert_within(function(*arrays, score_mod="alibi", backend="reference"), allowed, name)
    assert mhakit.explain(query, key, value, score_mod="alibi").backend == "cpu"
    layer = mhakit.MultiHeadAttention(16, 4, rng=0)
    x = np.ones((3, 16), np.float32) * np.arange(3, dtype=np.float32)[:, None]
    assert not np.array_equal(layer(x, score_mod="alibi"), layer(x))


def test_the_last_rows_of_a_causal_call_are_a_call_of_their_own():
    """t is the target's source position, so a decoded row takes the distances of the whole."""
    query, key, value = draw(Sizes(1, 2, 2, 9, 9, 8, 8), np.float64)
    keywords = {"causal": True, "score_mod": "alibi", "backend": "reference"}
    whole = mhakit.attention(query, key, value, **keywords)
    last = mhakit.attention(query[:, :, 7:], key, value, query_offset=7, **keywords)
    np.testing.assert_allclose(last, whole[:, :, 7:], atol=1e-14)


WRONG = {
    "slopes": ("alibi", (np.ones(3),), mhakit.ShapeError, r"slopes must be \(H,\) with H=4, got shape \(3,\)"),
    "cap": ("softcap", (0.0,), mhakit.ParameterError, r"cap must be a finite number greater than 0, got 0.0"),
    "cap's kind": ("softcap", ("x",), mhakit.ParameterError, r"cap must be .*, got 'x'"),
    "rates": ("distance_decay", (np.ones((2, 2)),), mhakit.ShapeError, r"rates must be a number or \(H,\) with H=4, got shape \(2, 2\)"),
    "scales": ("distance_decay", (1.0, -1.0), mhakit.ParameterError, r"scales must be finite and at least 0, got -1.0"),
    "table": ("t5_relative_position", (np.ones((32, 3)),), mhakit.ShapeError, r"table must be \(buckets, H\) with H=4, got shape \(32, 3\)"),
    "odd": ("t5_relative_position", (np.ones((7, 4)),), mhakit.ShapeError, r"table must have an even number, at least 4, of buckets, got 7"),
    "one": ("t5_relative_position_causal", (np.ones((1, 4)),), mhakit.ShapeError, r"table must have at least 2 buckets, got 1"),
    "near": ("t5_relative_position", (TABLE, 8), mhakit.ParameterError, r"max_distance must be an int greater than 8, as the table has 32 buckets, got 8"),
    "too many": ("alibi", (1, 2), mhakit.ParameterError, r"score_args of 'alibi' must be \(slopes=None\), got 2 of them"),
    "no tuple": ("alibi", [1.0], mhakit.ParameterError, r"score_args must be a tuple, got list"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_option_is_named_with_its_rule(fault):
    name, args, error, message = WRONG[fault]
    query, key, _ = draw(SIZES, np.float32)
    with pytest.raises(error, match=message):
        mhakit.attention_scores(query, key, score_mod=name, score_args=args)


def test_listings_say_what_a_name_takes_and_where_it_is_from():
    mods = {mod.name: mod for mod in mhakit.score_mods()}
    assert mods["softcap"].options == "cap=50.0"
    assert mods["t5_relative_position"].reference == "arXiv:1910.10683"
    assert mods["alibi"].distribution == "mhakit"
    assert math.isclose(mods["alibi"].factory(8, np.dtype(np.float64))[1][0][0], 0.5)
