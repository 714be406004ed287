"""A side of `mhakit bench` that computes something else than the row is caught, and not timed."""

from dataclasses import replace

import numpy as np
import pytest

import mhakit
from material.rows import SMALL, SMALL_CAUSAL
from mhakit.bench import attention, checks, combining, layers
from mhakit.bench.measuring import measure
from mhakit.bench.rows import Attention, Combination, Goal, Layer, Row
from mhakit.bench.timing import QUICK
from mhakit.testing import Sizes


@pytest.mark.parametrize(
    "work",
    [
        SMALL,
        SMALL_CAUSAL,
        replace(SMALL_CAUSAL, causal=False, window=(3, 2)),
        replace(SMALL_CAUSAL, window=(4, 0)),
        Attention(Sizes(3, 4, 2, 20, 32, 16, 16), padded=True),
        replace(SMALL, changed="mask"),
        replace(SMALL, changed="bias"),
    ],
    ids=["dense", "causal", "window", "causal window", "padded", "mask", "bias"],
)
def test_numpys_formula_and_mhakit_are_the_same_row(work):
    peer = attention.contest(work).peers["numpy"]()
    assert peer.call().shape == (work.sizes.B, 4, 20, 16)


def test_a_score_mods_bias_says_what_the_score_mod_says():
    given = attention.case(replace(SMALL_CAUSAL, causal=False, changed="alibi"))
    query, key, value = given.query, given.key, given.value
    mine = mhakit.attention(query, key, value, backend="reference", **given.keywords)
    attention.check(given, mine, attention.with_numpy(given)(), "numpy")
    other = replace(given, bias=given.bias / 2)
    with pytest.raises(AssertionError, match="numpy"):
        attention.check(given, mine, attention.with_numpy(other)(), "numpy")


def wrong(given):
    """Return results that a peer might give for a row, none of them the row's."""
    query, key, value, keywords = given.query, given.key, given.value, given.keywords
    right = mhakit.attention(query, key, value, **keywords)
    one = right.copy()
    one[0, 3, 11, 5] += 1e-5
    return {
        "another scale": mhakit.attention(query, key, value, scale=0.24, **keywords),
        "nothing hidden": mhakit.attention(query, key, value, window=(19, 19)),
        "one number off": one,
        "one number NaN": np.where(one == one[0, 3, 11, 5], np.float32("nan"), one),
        "another shape": right[:, :, :-1],
    }


@pytest.mark.parametrize(
    "mistake",
    ["another scale", "nothing hidden", "one number off", "one number NaN", "another shape"],
)
@pytest.mark.parametrize("sampled", [False, True], ids=["every target", "a sample"])
def test_a_peer_that_computes_something_else_is_caught(mistake, sampled, monkeypatch):
    if sampled:
        monkeypatch.setattr(checks, "CHECKED", 1)
    given = attention.case(SMALL_CAUSAL)
    right = mhakit.attention(given.query, given.key, given.value, **given.keywords)
    attention.check(given, right, right.copy(), "torch")
    with pytest.raises(AssertionError, match=r"torch|the peer \(1, 4, 19, 16\)"):
        attention.check(given, right, wrong(given)[mistake], "torch")


def test_a_row_that_fails_its_check_is_told_and_not_timed(monkeypatch):
    monkeypatch.setitem(attention.MAKE, "numpy", lambda given: lambda: given.query * 2)
    (told,) = measure(Row("dense", SMALL, (Goal("numpy", 1.0),)), QUICK)
    assert told.wrong
    assert told.measured is None
    assert told.note.startswith("numpy: error ")


@pytest.mark.parametrize("weights", [False, True])
def test_a_layer_that_computes_something_else_is_caught(weights):
    work = Layer(2, 9, weights, M=32, H=4)
    state, x = layers.draw_state(work), np.random.default_rng(0).standard_normal((2, 9, 32))
    x = x.astype(np.float32)
    layer = mhakit.MultiHeadAttention.from_torch_state_dict(state, 4)
    mine = layer(x, return_weights=True) if weights else layer(x)
    layers.check(work, state, x, mine, mine, "torch")
    other = layer(x + np.float32(1e-5), return_weights=True)
    with pytest.raises(AssertionError, match="torch, output"):
        layers.check(work, state, x, mine, other if weights else other[0], "torch")
    if weights:
        with pytest.raises(AssertionError, match="torch, weights"):
            layers.check(work, state, x, mine, (mine[0], other[1]), "torch")


@pytest.mark.parametrize("name", ["average", "concat_project"])
def test_every_form_in_numpy_combines_as_mhakit_does(name, monkeypatch):
    work = Combination(name, H=3, E=8, T=7)
    assert combining.contest(work).peers["numpy"]().note
    forms = combining.numpy_forms

    def halved(*given):
        return {form: lambda call=call: call() / 2 for form, call in forms(*given).items()}

    monkeypatch.setattr(combining, "numpy_forms", halved)
    with pytest.raises(AssertionError, match="error"):
        combining.contest(work).peers["numpy"]()


def test_a_combination_without_a_form_in_numpy_is_no_row():
    assert combining.numpy_forms("unheard of", np.zeros((1, 2, 3, 4)), {}) == {}
