"""Line 1 of the contract: a hidden source is never used."""

import numpy as np
import pytest

import mhakit
from material.arrays import POISON
from material.contract import FUNCTIONS, SIZES, hiding_keywords
from mhakit.api.attending import attention_and_weights
from mhakit.testing import draw

RULES = ["mask", "bias of -inf", "causal", "window", "lengths", "score_mod"]


def call(function, query, key, value, keywords, backend):
    if function == "attention":
        return mhakit.attention(query, key, value, **keywords, return_lse=True, backend=backend)
    if function == "attention_and_weights":  # what a layer returns with weights
        return attention_and_weights(query, key, value, **keywords, backend=backend)
    return (getattr(mhakit, function)(query, key, **keywords, backend=backend),)


TABLE = [
    (function, rule)
    for function in [*FUNCTIONS, "attention_and_weights"]
    for rule in RULES
    # its kernel is that of attention_weights, compiled once more for every function of scores
    if (function, rule) != ("attention_and_weights", "score_mod")
]


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize(("function", "rule"), TABLE)
def test_1_a_hidden_source_is_never_used(function, rule, poison, backend):
    """Poison a source everywhere, then hide it where the rule would show it."""
    query, key, value = draw(SIZES, np.float32)
    keywords, hidden = hiding_keywords(rule)
    clean = call(function, query, key, value, keywords, backend)
    poisoned_source = SIZES.S // 4 + (rule == "lengths")
    key, value = key.copy(), value.copy()
    key[:, :, poisoned_source] = POISON[poison]
    value[:, :, poisoned_source] = POISON[poison]
    poisoned = call(function, query, key, value, keywords, backend)
    blind = hidden[..., poisoned_source]
    assert blind.any(), "a rule that hides nothing tests nothing"
    for was, now in zip(clean, poisoned, strict=True):
        np.testing.assert_array_equal(was[blind], now[blind])
    if (~blind).any() and function in ("attention", "attention_and_weights"):
        assert not np.isfinite(poisoned[0][~blind]).all(), "the poison must reach those who look"


@pytest.mark.parametrize("T", [70, 3], ids=["tiles", "decoding"])
@pytest.mark.parametrize("rule", ["mask", "causal", "window", "lengths"])
def test_1_holds_for_every_dtype_and_form(rule, T, dtype, form):
    sizes = SIZES._replace(T=T)
    query, key, value = draw(sizes, dtype)
    keywords, hidden = hiding_keywords(rule, sizes)
    clean = mhakit.attention(query, key, value, **keywords)
    clean_and_weights = attention_and_weights(query, key, value, **keywords)
    for s in range(sizes.S):
        if hidden[..., s].all():
            key[:, :, s], value[:, :, s] = np.nan, np.inf
    assert np.isnan(key.astype(float)).any(), "a rule that hides nothing tests nothing"
    np.testing.assert_array_equal(mhakit.attention(query, key, value, **keywords), clean)
    again = attention_and_weights(query, key, value, **keywords)
    for was, now in zip(clean_and_weights, again, strict=True):
        np.testing.assert_array_equal(was, now)


def test_1_the_weight_of_a_hidden_source_is_exactly_0_beside_values_of_1e38(backend):
    query, key, value = draw(SIZES, np.float32)
    keywords, _ = hiding_keywords("lengths")
    clean = mhakit.attention(query, key, value, **keywords, backend=backend)
    first, second = keywords["key_lengths"]
    value[0, :, first:] = -3e38
    value[1, :, second:] = 3e38
    np.testing.assert_array_equal(
        mhakit.attention(query, key, value, **keywords, backend=backend), clean
    )


@pytest.mark.parametrize("neighbours", [True, False])
@pytest.mark.parametrize("function", ["attention", "attention_and_weights", "weighted_sum"])
def test_1_not_one_number_of_a_hidden_value_is_used(function, neighbours, dtype, backend):
    """The numbers of a block are looked at by registers and, at the ends, one by one."""
    sizes = SIZES._replace(E=SIZES.E + 3)
    query, key, value = draw(sizes, dtype)
    if not neighbours:
        value = np.ascontiguousarray(value.swapaxes(2, 3)).swapaxes(2, 3)
    mask = np.random.default_rng(7).random((sizes.B, sizes.H, sizes.T, sizes.S)) < 0.5
    weights = mhakit.attention_weights(query, key, mask=mask, backend=backend)

    def attended():
        if function == "weighted_sum":
            return mhakit.weighted_sum(weights, value, backend=backend)
        return call(function, query, key, value, {"mask": mask}, backend)[0]

    clean, ratio = attended(), sizes.H // sizes.G
    last = sizes.S - 1
    for s in {0, min(63, last), min(64, last), last}:
        for e in (0, sizes.E - 1):
            b, g = s % sizes.B, e % sizes.G
            kept, value[b, g, s, e] = value[b, g, s, e], np.nan
            poisoned, looks = attended(), np.zeros(clean.shape, bool)
            heads = slice(g * ratio, (g + 1) * ratio)
            looks[b, heads, :, e] = mask[b, heads, :, s]
            assert np.isnan(poisoned[looks]).all()
            # the reference sums in another order where something is not finite
            within = 1e-12 if backend == "reference" else 0
            np.testing.assert_allclose(poisoned[~looks], clean[~looks], rtol=0, atol=within)
            value[b, g, s, e] = kept


def test_1_a_value_that_is_seen_is_used_even_if_it_is_nan(backend):
    query, key, value = draw(SIZES, np.float32)
    value[0, 0, -1, 3] = np.nan
    output = mhakit.attention(query, key, value, backend=backend)
    assert np.isnan(output[0, :2, :, 3]).all()
    assert np.isfinite(np.delete(output[0, :2], 3, axis=-1)).all()
    assert np.isfinite(output[1]).all()


@pytest.mark.parametrize("special", ["NaN", "inf"])
def test_1_a_query_or_key_that_is_not_finite_shows_in_its_own_rows_only(special, backend):
    query, key, value = draw(SIZES, np.float32)
    query[1, 2, 3] = POISON[special]
    output, lse = mhakit.attention(query, key, value, return_lse=True, backend=backend)
    bad = ~np.isfinite(output).all(axis=-1)
    assert bad[1, 2, 3]
    assert bad.sum() == 1
    assert not np.isfinite(lse[1, 2, 3])
