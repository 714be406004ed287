import math

import mhakit
import numpy as np
import pytest

from mhakit_dcmha import DCMHA

B, H, G, T, S, D, E, M = 2, 4, 2, 7, 9, 8, 6, 5
NAMES = ("static", "hidden", "low_rank", "gate")


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    return request.param


def draw(seed=0, dtype=np.float64):
    """Return query, key, value, hidden states of targets and sources, and parameters."""
    rng = np.random.default_rng(seed)
    shapes = (B, H, T, D), (B, G, S, D), (B, H, S, E), (B, T, M), (B, S, M)
    query, key, value, x, y = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    learned = mhakit.mixing_parameters("dcmha", score_heads=H, model_width=M, rng=seed)
    learned = {name: 0.5 * rng.standard_normal(learned[name].shape) for name in NAMES}
    return (query, key, value), {"hidden_states": x, "source_states": y}, learned


def dynamic(state, which, side, learned):
    """Return W_query(t) or W_key(s) of one word, term by term: arXiv:2405.08553, section 2."""
    inner = state @ learned["hidden"][which, side]
    inner = np.array([0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in inner])
    factors = np.einsum("k,krh->rh", inner, learned["low_rank"][which, side])
    rank = len(factors) // 2
    W = np.diag(np.tanh(state @ learned["gate"][which, side]))
    for a, b in zip(factors[:rank], factors[rank:], strict=True):
        W = W + np.outer(a / math.sqrt((a**2).mean() + 1e-6), b)
    return W


def compose(array, states, which, learned, *, key_wise=True):
    """Return A' = W^T A for one sentence, (H, T, S), word by word."""
    fixed = np.eye(H) + learned["static"][which]
    composed = np.empty_like(array)
    for t, x in enumerate(states[0]):
        for s, y in enumerate(states[1]):
            W = fixed + dynamic(x, which, 0, learned)
            W = W + dynamic(y, which, 1, learned) if key_wise else W
            composed[:, t, s] = W.T @ array[:, t, s]
    return composed


def formula(arrays, states, learned, seen, **options):
    """Scale, compose, mask, softmax, compose, times value."""
    query, key, value = arrays
    outputs = []
    for b in range(B):
        words = (states["hidden_states"][b], states["source_states"][b])
        scores = np.einsum("htd,hsd->hts", query[b], np.repeat(key[b], H // G, axis=0))
        scores = compose(scores / math.sqrt(D), words, 0, learned, **options)
        powers = np.where(seen, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0)
        weights = compose(powers / powers.sum(axis=-1, keepdims=True), words, 1, learned)
        outputs.append(weights @ value[b])
    return np.array(outputs)


CAUSAL = {"causal": True, "query_offset": 2}
SEEN = np.arange(S) <= np.arange(T)[:, None] + 2


def test_it_is_the_formula_of_the_paper(backend):
    arrays, states, learned = draw()
    output = mhakit.mixed_attention(*arrays, "dcmha", learned, **states, **CAUSAL, backend=backend)
    np.testing.assert_allclose(output, formula(arrays, states, learned, SEEN))
    wrong = formula(arrays, states, learned, SEEN, key_wise=False)
    assert not np.allclose(output, wrong), "the formula must tell a missing part"


def test_it_begins_as_attention(backend):
    arrays, states, _ = draw()
    learned = mhakit.mixing_parameters("dcmha", score_heads=H, model_width=M, rng=0)
    output = mhakit.mixed_attention(*arrays, DCMHA, learned, **states, **CAUSAL, backend=backend)
    query, key, value = arrays
    expected = mhakit.attention(query, np.repeat(key, 2, axis=1), value, **CAUSAL, backend=backend)
    np.testing.assert_allclose(output, expected)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", ["causal", "mask", "lengths", "bias"])
def test_no_hidden_source_leaks_by_its_key_value_or_hidden_state(rule, poison, backend):
    arrays, states, learned = draw(dtype=np.float32)
    seen = np.broadcast_to(SEEN, (B, T, S))
    if rule != "causal":
        seen = np.random.default_rng(1).random((B, T, S)) < 0.6
    if rule == "lengths":
        seen = np.broadcast_to(np.arange(S) < np.array([4, 8])[:, None, None], (B, T, S))
    keywords = {
        "causal": CAUSAL,
        "mask": {"mask": seen[:, None]},
        "lengths": {"key_lengths": [4, 8]},
        "bias": {"bias": np.where(seen[:, None], 0.0, -np.inf)},
    }[rule] | {"return_weights": True, "backend": backend}
    clean, _ = mhakit.mixed_attention(*arrays, "dcmha", learned, **states, **keywords)
    reached = False
    for s in range(S):
        query, key, value = (array.copy() for array in arrays)
        sources = states["source_states"].copy()
        key[:, :, s] = value[:, :, s] = sources[:, s, None] = poison
        now, weights = mhakit.mixed_attention(
            query, key, value, "dcmha", learned, hidden_states=states["hidden_states"],
            source_states=sources, **keywords,
        )  # fmt: skip
        blind = np.broadcast_to(~seen[:, None, :, s], (B, H, T))
        np.testing.assert_array_equal(now[blind], clean[blind])
        assert not weights[..., s][blind].any()
        reached |= not np.isfinite(now[~blind]).all()
    assert reached, "the poison must reach those who look"


def test_a_target_that_sees_nothing_is_0(backend):
    arrays, states, learned = draw(dtype=np.float32)
    mask = np.ones((T, S), bool)
    mask[2] = False
    output = mhakit.mixed_attention(*arrays, "dcmha", learned, **states, mask=mask, backend=backend)
    assert not output[:, :, 2].any()
    assert output[:, :, 3].all()


def test_decoding_gives_the_rows_of_the_whole(backend):
    arrays, states, learned = draw()
    whole = mhakit.mixed_attention(*arrays, "dcmha", learned, **states, **CAUSAL, backend=backend)
    query, key, value = arrays
    last = mhakit.mixed_attention(
        query[:, :, 6:], key, value, "dcmha", learned, causal=True, query_offset=8,
        hidden_states=states["hidden_states"][:, 6:], source_states=states["source_states"],
        backend=backend,
    )  # fmt: skip
    np.testing.assert_allclose(last, whole[:, :, 6:])


def test_it_is_found_by_name():
    (record,) = [record for record in mhakit.mixings() if record.name == "dcmha"]
    assert (record.cls, record.distribution) == (DCMHA, "mhakit-dcmha")


def test_what_it_cannot_do_is_refused_with_the_way_out():
    with pytest.raises(mhakit.ParameterError, match="got 4, 4 and 2; pass value_heads=4"):
        mhakit.mixing_parameters("dcmha", score_heads=4, value_heads=2, model_width=5)
    with pytest.raises(mhakit.ParameterError, match=r"must know M, .* pass hidden_states"):
        mhakit.mixing_parameters("dcmha", score_heads=4)
    with pytest.raises(mhakit.ParameterError, match="rank must be an int of at least 1, got 0"):
        DCMHA(rank=0)
    arrays, _, learned = draw()
    with pytest.raises(mhakit.ParameterError, match="hidden_states must be given"):
        mhakit.mixed_attention(*arrays, "dcmha", learned)
