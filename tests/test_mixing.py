"""Attention whose heads exchange scores and weights: formula, what is hidden, laws, errors."""

import math

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit import MixingNotFound, OutOfMemory, ParameterError, PluginError, ShapeError
from mhakit.plugin_api import HeadMixing, ParameterSpec
from mhakit.testing import Budget, Sizes, assert_within, budget, draw

B, K, G, H, V, T, S, D, E = 2, 6, 3, 4, 2, 9, 13, 8, 5


def inputs(dtype=np.float64, seed=0, heads=(K, H, V), values=None):
    """Return query, key, value and the parameters of talking heads, drawn afresh."""
    rng = np.random.default_rng(seed)
    scoring, softmax, valued = heads
    shapes = (B, scoring, T, D), (B, G, S, D), (B, values or valued, S, E)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    learned = {
        "score_projection": rng.standard_normal((scoring, softmax)).astype(np.float32),
        "weight_projection": rng.standard_normal((softmax, valued)).astype(np.float32),
    }
    return arrays, learned


def visibility(rule, softmax=H):
    """Return keywords that hide by ``rule``, and what each head of softmax sees, (B, H, T, S)."""
    t, s = np.ogrid[:T, :S]
    seen = np.ones((B, softmax, T, S), bool)
    if rule == "nothing":
        return {}, seen
    if rule == "causal":
        return {"causal": True, "query_offset": 2}, seen & (s <= t + 2)
    if rule == "window":
        near = (s - t >= -3) & (s - t <= 1)
        return {"window": (3, 1), "query_offset": 0}, seen & near
    if rule == "lengths":
        return {"key_lengths": [4, 11]}, seen & (s < np.array([4, 11])[:, None, None, None])
    if rule == "mask of every head":
        mask = np.random.default_rng(5).random((B, softmax, T, S)) < 0.6
        mask[:, :, 3] = False
        mask[:, 1:, :, 5] = False
        return {"mask": mask}, mask
    if rule == "mask of keys":
        mask = np.random.default_rng(5).random((B, 1, 1, S)) < 0.6
        return {"mask": mask}, seen & mask
    if rule == "bias":
        bias = np.random.default_rng(6).standard_normal((softmax, T, S))
        bias[:, (s + t) % 3 == 0] = -np.inf
        return {"bias": bias}, seen & (bias != -np.inf)
    raise AssertionError(rule)


RULES = [
    "nothing", "causal", "window", "lengths", "mask of every head", "mask of keys", "bias",
]  # fmt: skip


def formula(arrays, learned, seen, bias, real, mistake=None):
    """Scale, mix, bias and mask, softmax, mix, times value: talking heads as written, in ``real``."""
    query, key, value = (array.astype(real) for array in arrays)
    P, W = (learned[name].astype(real) for name in ("score_projection", "weight_projection"))
    key = np.repeat(key, query.shape[1] // key.shape[1], axis=1)
    value = np.repeat(value, W.shape[1] // value.shape[1], axis=1)
    scores = np.einsum("bhtd,bhsd->bhts", query, key) * real(1 / math.sqrt(D))
    if mistake == "mask before the mix":
        scores, seen = np.where(seen, scores, real(-1e4)), np.ones_like(seen)
    if mistake == "bias before the mix":
        scores, bias = scores + bias, None
    mixed = np.einsum("bits,ij->bjts", scores, P.T if mistake == "mix from the other side" else P)
    mixed = np.where(seen, mixed + (0 if bias is None else np.where(seen, bias, 0)), -np.inf)
    top = mixed.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(mixed - np.where(top == -np.inf, 0, top)).astype(real)
    total = powers.sum(axis=-1, keepdims=True)
    weights = powers / np.where(total == 0, 1, total)
    if mistake != "no second mix":
        weights = np.einsum("bjts,jk->bkts", weights, W)
    return np.einsum("bkts,bkse->bkte", weights, value), weights


def budgets(arrays, learned, seen, bias=None):
    """Return what talking heads may differ by: as `mhakit.testing.budget` has it."""
    dtype = arrays[0].dtype
    real, finest = (np.float64, np.longdouble) if dtype == np.float64 else (np.float32, np.float64)
    exact = formula(arrays, learned, seen, bias, finest)
    plain = formula(arrays, learned, seen, bias, real)
    half = float(ml_dtypes.finfo(dtype).eps) / 2
    return [
        Budget(e, 2 * float(np.abs(p - e).max() + half * np.abs(e).max()))
        for e, p in zip(exact, plain, strict=True)
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_it_is_the_formula_of_talking_heads_with_three_counts_of_heads(rule, dtype, backend):
    arrays, learned = inputs(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    keywords, seen = visibility(rule)
    result = mhakit.mixed_attention(
        *arrays, "talking_heads", learned, softmax_heads=H, **keywords,
        return_weights=True, backend=backend,
    )  # fmt: skip
    expected = budgets(arrays, learned, seen, keywords.get("bias"))
    for name, actual, allowed in zip(("output", "weights"), result, expected, strict=True):
        assert actual.dtype == arrays[0].dtype
        assert_within(actual, allowed, name)


def test_value_heads_may_be_shared(backend):
    arrays, learned = inputs(heads=(K, H, 6), values=2)
    keywords, seen = visibility("causal")
    output = mhakit.mixed_attention(
        *arrays, "talking_heads", learned, softmax_heads=H, value_heads=6, **keywords,
        backend=backend,
    )  # fmt: skip
    assert_within(output, budgets(arrays, learned, seen)[0])


@pytest.mark.parametrize(
    "mistake",
    ["mask before the mix", "bias before the mix", "mix from the other side", "no second mix"],
)
def test_the_budget_tells_every_other_order_apart(mistake):
    arrays, learned = inputs(heads=(6, 6, 6))
    bias = np.random.default_rng(7).standard_normal((T, S))
    keywords, seen = visibility("causal", 6)
    keywords |= {"bias": bias}
    right, _ = budgets(arrays, learned, seen, bias)
    assert_within(mhakit.mixed_attention(*arrays, "talking_heads", learned, **keywords), right)
    wrong, _ = formula(arrays, learned, seen, bias, np.float64, mistake)
    with pytest.raises(AssertionError, match="error"):
        assert_within(wrong, right)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_mixing_by_the_identity_is_attention(dtype, backend):
    arrays = draw(Sizes(2, 6, 3, 40, 70, 16, 12), dtype)
    rng = np.random.default_rng(0)
    keywords = {
        "mask": rng.random((2, 6, 40, 70)) < 0.7,
        "bias": rng.standard_normal((6, 1, 70)),
        "causal": "bottom_right",
        "key_lengths": [70, 51],
    }
    expected, _ = budget("attention", *arrays, **keywords)
    learned = mhakit.mixing_parameters("talking_heads", score_heads=6)
    output = mhakit.mixed_attention(
        *arrays, "talking_heads", learned, value_heads=6, **keywords, backend=backend
    )
    assert_within(output, expected)


class Idle(HeadMixing):
    """No mix at all, by the methods' defaults."""

    name = "idle"
    reference = "a test"

    def mix_scores(self, scores, parameters, **states):
        return super().mix_scores(scores, parameters, **states)


def test_methods_left_out_mix_nothing():
    arrays = draw(Sizes(2, 4, 4, 7, 9, 8, 6), np.float32)
    expected, _ = budget("attention", *arrays)
    assert_within(mhakit.mixed_attention(*arrays, Idle), expected)


class ByWord(HeadMixing):
    """Scores and weights times a number that both words say."""

    name = "by_word"
    reference = "a test"
    uses_hidden_states = True

    def mix_scores(self, scores, parameters, *, hidden_states, source_states):
        return scores[:, ::-1] * self.factor(hidden_states, source_states)

    def mix_weights(self, weights, parameters, *, hidden_states, source_states):
        return weights[:, ::-1] * self.factor(hidden_states, source_states) + 1

    def factor(self, hidden_states, source_states):
        return (hidden_states[:, :, :1] + source_states[:, None, :, 0])[:, None]


class Gossip(ByWord):
    """What no mixing may do: every source tells of all others."""

    def factor(self, hidden_states, source_states):
        return hidden_states[:, :1, :1].mean() + source_states[:, None, :, 0].sum()


POISON = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf}


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


@pytest.mark.parametrize("sizes", [(2, 0, 5), (2, 3, 0), (0, 3, 5)])
def test_empty_sizes_work(sizes, backend):
    b, t, s = sizes
    shapes = ((b, 4, t, 8), (b, 4, s, 8), (b, 4, s, 6))
    learned = mhakit.mixing_parameters("talking_heads", score_heads=4)
    output, weights = mhakit.mixed_attention(
        *(np.ones(shape, np.float32) for shape in shapes), "talking_heads", learned,
        return_weights=True, backend=backend,
    )  # fmt: skip
    assert output.shape == (b, 4, t, 6)
    assert not output.any()
    assert weights.shape == (b, 4, t, s)


def test_permuting_heads_permutes_or_changes_nothing(backend):
    rng = np.random.default_rng(1)
    (query, key, value), learned = inputs()
    mask = rng.random((B, H, T, S)) < 0.7
    P, W = learned["score_projection"], learned["weight_projection"]
    allowed = budgets([query, key, value], learned, mask)[0]

    def run(query, key, value, P, W, mask):
        return mhakit.mixed_attention(
            query, key, value, "talking_heads", {"score_projection": P, "weight_projection": W},
            softmax_heads=H, mask=mask, backend=backend,
        )  # fmt: skip

    groups, h, k = rng.permutation(G), rng.permutation(H), np.arange(V)[::-1]
    i = (groups[:, None] * (K // G) + np.arange(K // G)).ravel()
    assert_within(run(query[:, i], key[:, groups], value, P[i], W, mask), allowed, "score heads")
    assert_within(run(query, key, value, P[:, h], W[h], mask[:, h]), allowed, "softmax heads")
    permuted = Budget(allowed.exact[:, k], allowed.allowed)
    assert_within(run(query, key, value[:, k], P, W[:, k], mask), permuted, "value heads")
    s = rng.permutation(S)
    assert_within(run(query, key[:, :, s], value[:, :, s], P, W, mask[..., s]), allowed, "sources")
    with pytest.raises(AssertionError, match="error"):
        assert_within(run(query, key, value, P[:, np.roll(h, 1)], W[h], mask[:, h]), allowed)


def test_layout_and_a_missing_B_change_nothing(backend):
    arrays, learned = inputs(np.float32)
    keywords = {"softmax_heads": H, "causal": "top_left", "backend": backend}
    plain = mhakit.mixed_attention(*arrays, "talking_heads", learned, **keywords)
    swapped = [np.ascontiguousarray(array.swapaxes(1, 2)) for array in arrays]
    result = mhakit.mixed_attention(*swapped, "talking_heads", learned, layout="BTHD", **keywords)
    np.testing.assert_array_equal(result.swapaxes(1, 2), plain)
    one, weights = mhakit.mixed_attention(
        *(array[1] for array in arrays), "talking_heads", learned, return_weights=True, **keywords
    )
    np.testing.assert_array_equal(one, plain[1])
    assert weights.shape == (V, T, S)


def test_callers_arrays_are_never_written(backend):
    arrays, learned = inputs(np.float32, heads=(6, 6, 6))
    x = np.ones((B, S, 3), np.float32)
    mask = np.random.default_rng(0).random((B, 6, T, S)) < 0.5
    bias = np.ones((6, T, S), np.float32)
    given = [*arrays, *learned.values(), x, mask, bias]
    before = [array.copy() for array in given]  # kernels write by address, whatever the flag says
    for array in given:
        array.flags.writeable = False
    mhakit.mixed_attention(*arrays, "talking_heads", learned, mask=mask, bias=bias, backend=backend)
    mhakit.mixed_attention(
        *arrays, ByWord, hidden_states=x[:, :T], source_states=x, mask=mask, backend=backend
    )
    for was, now in zip(before, given, strict=True):
        np.testing.assert_array_equal(was, now)


def test_each_mix_may_be_left_out():
    arrays, learned = inputs(heads=(6, 6, 6))
    seen = visibility("nothing", 6)[1]
    talking = mhakit.registry.find_mixing("talking_heads")
    for option, name in (("scores", "score_projection"), ("weights", "weight_projection")):
        expected, _ = budgets(arrays, learned | {name: np.eye(6)}, seen)
        rest = {other: array for other, array in learned.items() if other != name}
        output = mhakit.mixed_attention(*arrays, talking(**{option: False}), rest)
        assert_within(output, expected, option)


def test_mixing_parameters_begin_as_the_mixing_says():
    learned = mhakit.mixing_parameters(
        "talking_heads", score_heads=6, softmax_heads=4, value_heads=2, dtype=np.float64
    )
    np.testing.assert_array_equal(learned["score_projection"], np.eye(6, 4))
    np.testing.assert_array_equal(learned["weight_projection"], np.eye(4, 2))


def of_shape(*shape):
    return np.zeros(shape, np.float32)


CALL = {
    "query": of_shape(2, 4, 5, 8),
    "key": of_shape(2, 4, 7, 8),
    "value": of_shape(2, 4, 7, 6),
    "mixing": "talking_heads",
    "parameters": {"score_projection": np.eye(4), "weight_projection": np.eye(4)},
}
STATES = {"hidden_states": of_shape(2, 5, 3), "source_states": of_shape(2, 7, 3)}


class Returns(HeadMixing):
    name = "returns"
    reference = "a test"

    def __init__(self, what=None):
        self.what = what

    def mix_weights(self, weights, parameters, **_):
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


WRONG = {
    "value": ({"value": of_shape(2, 4, 6, 6)}, ShapeError, "value must have B=2 and S=7 as key has, and heads and E of at least 1, got B=2, S=6, 4 heads and E=6"),
    "rank of value": ({"value": of_shape(4, 7, 6)}, ShapeError, r"value must be \(B, G, S, E\) as query has B, got shape \(4, 7, 6\)"),
    "dtype": ({"value": np.zeros((2, 4, 7, 6))}, mhakit.DTypeError, "value must have the dtype of query, float32, got float64"),
    "softmax_heads": ({"softmax_heads": 0}, ParameterError, "softmax_heads must be an int of at least 1, got 0"),
    "value_heads": ({"value_heads": 2.0}, ParameterError, "value_heads must be an int of at least 1, got 2.0"),
    "shared values": ({"value_heads": 6}, ShapeError, "value must have heads that divide value_heads=6, got 4 heads"),
    "mask": ({"mask": np.ones((3, 5, 7), bool), "softmax_heads": 2}, ShapeError, r"mask must be broadcastable to \(B, softmax_heads, T, S\) = \(2, 2, 5, 7\), got shape \(3, 5, 7\)"),
    "mask's dtype": ({"mask": np.ones(7)}, mhakit.DTypeError, "mask must be bool, True where a source may be seen, got float64"),
    "bias": ({"bias": of_shape(4, 7)}, ShapeError, r"bias must be broadcastable to \(B, softmax_heads, T, S\)"),
    "layout": ({"layout": "TBHD"}, ParameterError, "layout must be 'BHTD' or 'BTHD', got 'TBHD'"),
    "backend": ({"backend": "gpu"}, ParameterError, "backend must be None or one of"),
    "causal": ({"causal": True}, ParameterError, "causal=True must come with T = S or a query_offset"),
    "hidden_states": ({"hidden_states": of_shape(2, 4, 3)}, ShapeError, r"hidden_states must be \(B, T, M\) with B=2 and T=5 and M of at least 1, got shape \(2, 4, 3\)"),
    "source_states": ({"source_states": of_shape(7, 3)}, ShapeError, r"source_states must be \(B, S, M\) with B=2 and S=7"),
    "two widths": (STATES | {"source_states": of_shape(2, 7, 4)}, ShapeError, "source_states must have M=3 as hidden_states has, got M=4"),
    "no states": ({"mixing": ByWord, "parameters": None}, ParameterError, "hidden_states must be given, mixing 'by_word' reads the layer's input, got None"),
    "no source states": ({"mixing": ByWord, "parameters": None, "hidden_states": of_shape(2, 5, 3)}, ParameterError, "source_states must be given, mixing 'by_word' reads the layer's input at the sources, got None and T=5, S=7"),
    "no parameters": ({"parameters": None}, ParameterError, "parameters of 'talking_heads' must be: score_projection, weight_projection, got none named 'score_projection'"),
    "a misspelt parameter": ({"parameters": {"score_projektion": of_shape(4, 4)}}, ParameterError, "got 'score_projektion'; did you mean 'score_projection'"),
    "a parameter's shape": ({"softmax_heads": 3}, ShapeError, r"parameters\['score_projection'\] of 'talking_heads' must have shape \(4, 3\) for 4 heads of scores, 3 of softmax, 4 of values, got shape \(4, 4\)"),
    "unknown": ({"mixing": "talking"}, MixingNotFound, "mixing must be an installed name, got 'talking'"),
    "returns nothing": ({"mixing": Returns(), "parameters": None}, PluginError, r"mixing 'returns' must return floats \(B, heads, T, S\) = \(2, 4, 5, 7\) from mix_weights, got None"),
    "returns a shape": ({"mixing": Returns(of_shape(2, 3, 5, 7)), "parameters": None}, PluginError, r"from mix_weights, got float32 of shape \(2, 3, 5, 7\)"),
    "raises": ({"mixing": Returns(OSError("no file")), "parameters": None}, PluginError, "mixing 'returns' must run mix_weights without an error, got OSError: no file"),
    "runs out of memory": ({"mixing": Returns(MemoryError()), "parameters": None}, OutOfMemory, r"what mix_weights of 'returns' makes of shape \(2, 4, 5, 7\) and dtype float32 must fit in memory, got a request of 1,120 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_bad_input_is_named_with_its_rule(fault):
    changed, error, message = WRONG[fault]
    with pytest.raises(error, match=message):
        mhakit.mixed_attention(**(CALL | changed))


def test_scores_that_do_not_fit_in_memory_are_refused_with_their_size():
    wide = np.broadcast_to(np.float32(0), (1, 4, 2**24, 8))
    with pytest.raises(
        OutOfMemory, match=r"the scores of mixed attention of shape .* got a request of"
    ):
        mhakit.mixed_attention(wide, wide, wide, "talking_heads", CALL["parameters"])


def test_a_mix_that_is_left_out_needs_equal_counts():
    talking = mhakit.registry.find_mixing("talking_heads")
    with pytest.raises(
        ParameterError,
        match="heads must be as many before as after scores where scores=False, got 4 and 3; leave scores=True",
    ):
        mhakit.mixing_parameters(talking(scores=False), score_heads=4, softmax_heads=3)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"score_heads": 0}, ParameterError, "score_heads must be an int of at least 1, got 0"),
        ({"score_heads": 2, "dtype": int}, mhakit.DTypeError, "dtype must be float64, float32"),
        ({"score_heads": 2, "rng": "x"}, ParameterError, "rng must be None, an int"),
        ({"score_heads": 2, "model_width": -1}, ParameterError, "model_width must be an int of at"),
    ],
)
def test_mixing_parameters_of_impossible_sizes_are_refused(keywords, error, message):
    with pytest.raises(error, match=message):
        mhakit.mixing_parameters("talking_heads", **keywords)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (np.ones(3), "mixing 'idle' must give parameters as a dict of names to ParameterSpec"),
        (ParameterSpec((3,), "identity"), "mixing 'idle' must initialise 'weight' of shape"),
    ],
)
def test_a_mixing_whose_parameters_break_the_rules_is_named(spec, message):
    class Careless(Idle):
        def parameters(self, shape):
            return {"weight": spec}

    with pytest.raises(PluginError, match=message):
        mhakit.mixing_parameters(Careless, score_heads=2)
