"""Every pair of keywords together, with NaN behind every source that nobody may see."""

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.score_mods import alibi
from material.simulation import SIMULATED
from mhakit.backends.reference import visible_sources
from mhakit.testing import Sizes, assert_within, budget, covering_array, draw
from mhakit.validation import as_problem

B, H = 2, 4


def per_batch(score, b, h, t, s, slopes):
    return score * slopes[b]


SHAPES = [(1, 80), (3, 600), (17, 17), (70, 33), (40, 150), (130, 130)]
TINY_SHAPES = [(1, 9), (2, 11), (3, 3), (5, 2), (3, 9), (4, 4)]
FACTORS = {
    "function": ["attention", "attention_weights", "attention_scores"],
    "dtype": ["float64", "float32", "float16", "bfloat16"],
    "G": [1, 2, 4],
    "TS": TINY_SHAPES if SIMULATED else SHAPES,
    "DE": [(4, 4), (3, 5), (10, 17)] if SIMULATED else [(16, 16), (5, 12), (80, 33)],
    "mask": [None, "every score", "a key's", "a row's", "(T, S)"],
    "bias": [None, "every score", "a head's", "with -inf", "of another dtype"],
    "causal": [None, "top_left", "bottom_right", "offset", "offsets"],
    "window": [None, (5, 3), (None, 4), (9, None)],
    "key_lengths": [None, "ragged", "one is 0"],
    "scale": [None, 0.31, -0.2],
    "softcap": [None, 2.5],
    "sinks": [None, "some"],
    "score_mod": [None, alibi, per_batch],
    "layout": ["BHTD", "BTHD"],
    "lies": ["in order", "strided"],
}
ROWS = covering_array(FACTORS)


def arguments(row):
    """Return arrays and keywords of one row of the covering array."""
    rng = np.random.default_rng(ROWS.index(row))
    (T, S), (D, E), G = row["TS"], row["DE"], row["G"]
    dtype = np.dtype(getattr(ml_dtypes, row["dtype"], row["dtype"]))
    real = np.float64 if dtype == np.float64 else np.float32
    query, key, value = draw(Sizes(B, H, G, T, S, D, E), dtype, seed=int(rng.integers(2**31)))
    keywords = {name: row[name] for name in ("scale", "softcap", "window", "layout")}

    shapes = {"every score": (B, H, T, S), "a key's": (B, 1, 1, S), "a row's": (H, T, 1)}
    if row["mask"]:
        keywords["mask"] = rng.random(shapes.get(row["mask"], (T, S))) < 0.7
    if row["bias"]:
        shape = (H, 1, S) if row["bias"] == "a head's" else (B, H, T, S)
        bias = rng.standard_normal(shape)
        if row["bias"] == "with -inf":
            bias[rng.random(shape) < 0.3] = -np.inf
        other = np.float16 if row["bias"] == "of another dtype" else real
        keywords["bias"] = bias.astype(other)
    if row["causal"] in ("top_left", "bottom_right"):
        keywords["causal"] = row["causal"]
    elif row["causal"] == "offset":
        keywords |= {"causal": True, "query_offset": 7}
    elif row["causal"] == "offsets":
        keywords |= {"causal": True, "query_offset": [S - T, -2]}
    elif row["window"] and T != S:
        keywords["query_offset"] = 3
    if row["key_lengths"]:
        keywords["key_lengths"] = [S // 2, S] if row["key_lengths"] == "ragged" else [0, S // 3]
    if row["sinks"] and row["function"] != "attention_scores":
        keywords["sinks"] = np.array([0.5, -np.inf, 2.0, -1.0], real)
    if row["score_mod"]:
        keywords |= {
            "score_mod": row["score_mod"],
            "score_args": (np.linspace(0.1, 0.7, H).astype(real),),
        }
    if row["lies"] == "strided":
        query, key, value = (np.repeat(a, 2, axis=2)[:, :, ::2] for a in (query, key, value))
    return query, key, value, {name: value for name, value in keywords.items() if value is not None}


def poison_the_unseen(query, key, value, keywords):
    """Return copies of key and value, NaN wherever no target of the group may look."""
    inner = {name: value for name, value in keywords.items() if name != "layout"}
    problem, _ = as_problem(query, key, value, **inner)
    visible = visible_sources(problem)
    if problem.bias is not None:
        visible = visible & (problem.bias != -np.inf)
    G = key.shape[1]
    seen = visible.reshape(B, G, H // G, *visible.shape[2:]).any(axis=(2, 3))
    key, value = key.copy(), value.copy()
    key[~seen] = np.nan
    value[~seen] = np.nan
    return key, value


def label(row):
    return "-".join(str(getattr(value, "__name__", value)) for value in row.values())


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_keywords_work_together_and_hide_what_they_should(row, backend):
    query, key, value, keywords = arguments(row)
    function, layout = row["function"], row["layout"]
    inner = {name: value for name, value in keywords.items() if name != "layout"}
    arrays = (query, key, value) if function == "attention" else (query, key)
    expected = budget(function, *arrays, **inner)

    key, value = poison_the_unseen(query, key, value, keywords)
    arrays = (query, key, value) if function == "attention" else (query, key)
    if layout == "BTHD":
        arrays = tuple(array.swapaxes(1, 2) for array in arrays)
    extra = {"return_lse": True} if function == "attention" else {}
    results = getattr(mhakit, function)(*arrays, **keywords, **extra, backend=backend)
    results = results if isinstance(results, tuple) else (results,)
    if function == "attention" and layout == "BTHD":
        results = (results[0].swapaxes(1, 2), results[1])
    for name, result, allowed in zip(("result", "lse"), results, expected, strict=False):
        assert_within(result, allowed, name)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_no_combination_of_keywords_hides_on_a_slow_loop(row):
    query, key, value, keywords = arguments(row)
    if row["layout"] == "BTHD":
        query, key, value = (array.swapaxes(1, 2) for array in (query, key, value))
    plan = mhakit.explain(query, key, value, **keywords)
    few = row["TS"][0] <= 4
    assert plan.kernel == ("cpu.decoding, segments" if few else "cpu.attention, fused tiles")


def test_the_covering_array_covers_every_pair():
    values = {name: [str(v) for v in options] for name, options in FACTORS.items()}
    seen = {
        (a, str(row[a]), b, str(row[b])) for row in ROWS for a in FACTORS for b in FACTORS if a < b
    }
    missing = [
        (a, x, b, y)
        for a in FACTORS
        for b in FACTORS
        if a < b
        for x in values[a]
        for y in values[b]
        if (a, x, b, y) not in seen
    ]
    assert not missing
    assert len(ROWS) < 60
