"""A hidden source is never used, whatever a mixing makes of it."""

import numpy as np
import pytest

import mhakit
from material.arrays import POISON
from material.mixings import RULES, B, ByWord, H, Idle, K, S, T, V, inputs, visibility


class Gossip(ByWord):
    """What no mixing may do: every source tells of all others."""

    def factor(self, hidden_states, source_states):
        return hidden_states[:, :1, :1].mean() + source_states[:, None, :, 0].sum()


def first_leak(mixing, learned, rule, poison, backend, heads=(K, H, V)):
    """Poison each source in turn; return the first that changes a target it is hidden from."""
    arrays, _ = inputs(np.float32, heads=heads)
    rng = np.random.default_rng(3)
    x = {
        "hidden_states": rng.standard_normal((B, T, 3)).astype(np.float32),
        "source_states": rng.standard_normal((B, S, 3)).astype(np.float32),
    }
    keywords, seen = visibility(rule, heads[1])
    keywords |= {"softmax_heads": heads[1], "return_weights": True, "backend": backend}
    hidden = ~seen.any(axis=1)
    assert hidden.any(), "a rule that hides nothing tests nothing"
    clean, weights = mhakit.mixed_attention(*arrays, mixing, learned, **x, **keywords)
    everywhere = np.broadcast_to(hidden[:, None], weights.shape)
    assert not weights[everywhere].any(), "the weight of a hidden source is exactly 0"
    reached = False
    for s in range(S):
        query, key, value = (array.copy() for array in arrays)
        sources = x["source_states"].copy()
        key[:, :, s] = value[:, :, s] = sources[:, s, None] = POISON[poison]
        now, weights = mhakit.mixed_attention(
            query, key, value, mixing, learned,
            hidden_states=x["hidden_states"], source_states=sources, **keywords,
        )  # fmt: skip
        blind = np.broadcast_to(hidden[:, None, :, s], now.shape[:3])
        reached |= not np.isfinite(now[~blind]).all()
        if not np.array_equal(now[blind], clean[blind]) or weights[everywhere].any():
            return s
    assert reached, "the poison must reach those who look"
    return None


HIDING = [rule for rule in RULES if rule != "nothing"]


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("rule", HIDING)
def test_no_hidden_source_leaks_through_talking_heads(rule, poison, backend):
    _, learned = inputs(np.float32)
    if rule == "mask of every head":
        learned["score_projection"][:, 1] = 0  # 0 * NaN, where one head sees what another does not
    assert first_leak("talking_heads", learned, rule, poison, backend) is None


@pytest.mark.parametrize("rule", HIDING)
def test_no_hidden_source_leaks_through_a_mixing_that_reads_its_hidden_state(rule, backend):
    assert first_leak(ByWord, {}, rule, "NaN", backend, heads=(6, 6, 6)) is None


def test_a_mixing_that_reads_other_sources_is_caught_leaking(backend):
    assert first_leak(Gossip, {}, "causal", "NaN", backend, heads=(6, 6, 6)) is not None


@pytest.mark.parametrize("rule", HIDING)
def test_a_mixing_is_handed_nothing_of_what_no_head_may_see(rule, backend):
    (query, key, value), _ = inputs(np.float32, heads=(6, 6, 6))
    keywords, seen = visibility(rule, 6)
    hidden = ~seen.any(axis=1)
    given = []

    class Recorder(Idle):
        def mix_scores(self, scores, parameters, **_):
            given.append(scores.copy())
            return scores

    key[:, :, -1] = np.nan
    mhakit.mixed_attention(query, key, value, Recorder, **keywords, backend=backend)
    assert not given[0][np.broadcast_to(hidden[:, None], given[0].shape)].any()
    assert np.isnan(given[0][..., -1]).any() == (~hidden[..., -1]).any()


@pytest.mark.parametrize("rule", HIDING)
def test_a_host_that_hides_nothing_is_caught_leaking(rule, monkeypatch):
    _, learned = inputs(np.float32)
    monkeypatch.setattr("mhakit.api.mixing.hidden_from_heads", lambda call: None)
    try:
        leak = first_leak("talking_heads", learned, rule, "NaN", "reference")
    except AssertionError as error:
        leak = str(error)
    assert leak is not None


def test_a_hidden_value_is_never_multiplied_even_by_a_mixing_that_weighs_it(backend):
    """ByWord adds 1 to every weight after softmax; the host takes it from hidden sources."""
    query, key, value = inputs(np.float32, heads=(6, 6, 6))[0]
    x = np.ones((B, S, 1), np.float32)
    value[:, :, 7:] = np.nan
    output, weights = mhakit.mixed_attention(
        query, key, value, ByWord, hidden_states=x[:, :T], source_states=x, key_lengths=[7, 7],
        return_weights=True, backend=backend,
    )  # fmt: skip
    assert np.isfinite(output).all()
    assert not weights[..., 7:].any()
    assert weights[..., :7].all()


def test_a_target_that_sees_nothing_is_0(backend):
    arrays, learned = inputs(np.float32)
    mask = np.ones((B, 1, T, S), bool)
    mask[0, :, 3] = False
    output, weights = mhakit.mixed_attention(
        *arrays, "talking_heads", learned, softmax_heads=H, mask=mask, return_weights=True,
        backend=backend,
    )  # fmt: skip
    assert not output[0, :, 3].any()
    assert not weights[0, :, 3].any()
    assert output[1].all()
