"""The six lines of the contract, each for every function, backend, dtype and form it holds for."""

import tracemalloc

import numpy as np
import pytest

import mhakit
from material.simulation import SIMULATED
from mhakit.api.attending import attention_and_weights
from mhakit.problem import computation_dtype
from mhakit.testing import GRID, Sizes, assert_within, budget, draw

SIZES = Sizes(2, 4, 2, 4, 12, 3, 5) if SIMULATED else Sizes(2, 4, 2, 70, 150, 16, 24)


def hiding_keywords(rule, sizes=SIZES):
    """Return keywords that hide some sources by ``rule``, and what they hide, (B, H, T, S)."""
    B, H, _, T, S, *_ = sizes
    _, t, s = np.ogrid[:B, :T, :S]
    if rule == "mask":
        mask = np.random.default_rng(5).random((B, H, T, S)) < 0.5
        mask[:, :, :, S // 4] = False
        return {"mask": mask}, ~mask
    if rule == "bias of -inf":
        bias = np.where(s % 3 == t % 3, -np.inf, 0.5 * np.sin(s)).astype(np.float32)
        return {"bias": bias[:, None]}, np.broadcast_to(np.isinf(bias)[:, None], (B, H, T, S))
    if rule == "causal":
        hidden = s > t
        return {"causal": "top_left"}, np.broadcast_to(hidden[:, None], (B, H, T, S))
    if rule == "window":
        offset, left, right = S // 7, T // 10, T // 7
        distance = s - t - offset
        hidden = (distance < -left) | (distance > right)
        keywords = {"window": (left, right), "query_offset": offset}
        return keywords, np.broadcast_to(hidden[:, None], (B, H, T, S))
    if rule == "lengths":
        lengths = [S // 4, S - 2]
        hidden = s >= np.array(lengths)[:, None, None]
        return {"key_lengths": lengths}, np.broadcast_to(hidden[:, None], (B, H, T, S))
    if rule == "score_mod":
        hidden = (s + t) % 2 == 1

        def every_other(score, b, h, t, s):
            return score if (s + t) % 2 == 0 else type(score)(-np.inf)

        return {"score_mod": every_other}, np.broadcast_to(hidden[:, None], (B, H, T, S))
    raise AssertionError(rule)


RULES = ["mask", "bias of -inf", "causal", "window", "lengths", "score_mod"]
POISON = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf}


def call(function, query, key, value, keywords, backend):
    if function == "attention":
        return mhakit.attention(query, key, value, **keywords, return_lse=True, backend=backend)
    if function == "attention_and_weights":  # what a layer returns with weights
        return attention_and_weights(query, key, value, **keywords, backend=backend)
    return (getattr(mhakit, function)(query, key, **keywords, backend=backend),)


FUNCTIONS = ["attention", "attention_weights", "attention_scores"]
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


@pytest.mark.parametrize("sinks", [None, [0.25, -1.5, 3.0, -np.inf]])
def test_2_a_target_that_sees_nothing_is_0(dtype, backend, sinks):
    query, key, value = draw(SIZES, dtype)
    mask = np.ones((SIZES.B, SIZES.H, SIZES.T, SIZES.S), bool)
    mask[0, :, 3] = False
    mask[1, 2] = False
    sinks = None if sinks is None else np.array(sinks)
    output, lse = mhakit.attention(
        query, key, value, mask=mask, sinks=sinks, return_lse=True, backend=backend
    )
    dead = ~mask.any(axis=-1)
    assert not output[dead].astype(float).any()
    assert np.isfinite(output.astype(float)).all()
    expected = -np.inf if sinks is None else sinks.astype(lse.dtype)[None, :, None]
    np.testing.assert_array_equal(lse[dead], np.broadcast_to(expected, lse.shape)[dead])
    weights = mhakit.attention_weights(query, key, mask=mask, sinks=sinks, backend=backend)
    assert not weights[dead].astype(float).any()
    assert not np.signbit(weights.astype(float)).any(), "no weight may read -0.0"
    keywords = {"mask": mask, "sinks": sinks, "backend": backend}
    output, same = attention_and_weights(query, key, value, **keywords)
    assert not output[dead].astype(float).any()
    np.testing.assert_array_equal(same, weights)
    names = {name: keywords[name] for name in ("mask", "sinks")}
    assert_within(output, budget("attention", query, key, value, **names)[0])


@pytest.mark.parametrize(
    "sizes", [(2, 4, 2, 0, 5, 8, 8), (2, 4, 2, 3, 0, 8, 8), (0, 4, 2, 3, 5, 8, 8)]
)
def test_2_empty_sizes_work(sizes, dtype, backend, form):
    B, H, _, T, S, _, E = sizes
    query, key, value = draw(Sizes(*sizes), dtype)
    output, lse = mhakit.attention(query, key, value, return_lse=True, backend=backend)
    assert output.shape == (B, H, T, E)
    assert not output.astype(float).any()
    assert (lse == -np.inf).all()
    assert mhakit.attention_scores(query, key, backend=backend).shape == (B, H, T, S)
    weights = mhakit.attention_weights(query, key, backend=backend)
    assert weights.shape == (B, H, T, S)
    assert mhakit.weighted_sum(weights, value, backend=backend).shape == (B, H, T, E)
    assert mhakit.merge_attention((output, lse), backend=backend)[0].shape == (B, H, T, E)
    output, weights = attention_and_weights(query, key, value, backend=backend)
    assert (output.shape, weights.shape) == ((B, H, T, E), (B, H, T, S))
    assert not output.astype(float).any()


@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"window": (101, 3)}], ids=str)
@pytest.mark.parametrize(
    "spans",
    [
        [(0, 150), (0, 5), (3, 20), (64, 128), (1, 65), (5, 150), (145, 150)],
        [(0, 4), (0, 1), (1, 4), (2, 3), (3, 4)],  # few enough to be decoded
    ],
    ids=["tiles", "decoding"],
)
def test_3_a_row_has_the_same_bits_whatever_stands_around_it(rule, spans, dtype, monkeypatch):
    """Cut targets, batches, groups and heads away; the order of decoding is one of its own."""
    from mhakit.backends.cpu import launch

    S = 700
    query, key, value = draw(Sizes(2, 4, 2, 150, S, 20, 12), dtype)
    lengths = np.array([S, 600])

    def rows(start, stop, b=slice(None), h=slice(None), g=slice(None)):
        return mhakit.attention(
            query[b, h, start:stop], key[b, g], value[b, g],
            query_offset=start + 520, key_lengths=lengths[b], **rule,
        )  # fmt: skip

    (first, last), *parts = spans
    whole = rows(first, last)
    for start, stop in parts:
        np.testing.assert_array_equal(rows(start, stop), whole[:, :, start:stop])
    np.testing.assert_array_equal(rows(first, last, b=slice(1, 2)), whole[1:])
    one_group = rows(first, last, h=slice(2, 4), g=slice(1, 2))
    np.testing.assert_array_equal(one_group, whole[:, 2:4])
    one_head = rows(first, last, h=slice(3, 4), g=slice(1, 2))
    np.testing.assert_array_equal(one_head, whole[:, 3:4])
    for limit in (0, float("inf")):
        monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
        np.testing.assert_array_equal(rows(first, last), whole)


def test_3_a_row_with_its_weights_has_the_same_bits_whatever_stands_around_it(dtype):
    query, key, value = draw(Sizes(2, 4, 2, 150, 300, 20, 12), dtype)
    rules = [{}, {"causal": True}, {"window": (101, 3)}]

    def rows(start, stop, rule, b=slice(None), h=slice(None), g=slice(None)):
        return attention_and_weights(
            query[b, h, start:stop], key[b, g], value[b, g], query_offset=start + 120, **rule
        )

    for rule in rules:
        whole = rows(0, 150, rule)
        for start, stop in [(0, 1), (3, 20), (64, 128), (5, 150)]:
            for part, all_rows in zip(rows(start, stop, rule), whole, strict=True):
                np.testing.assert_array_equal(part, all_rows[:, :, start:stop])
        one = rows(0, 150, rule, slice(1, 2), slice(3, 4), slice(1, 2))
        for part, all_rows in zip(one, whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[1:, 3:])


@pytest.mark.parametrize("rule", [{}, {"causal": True}, {"window": (9, 1)}], ids=str)
def test_3_holds_for_every_backend_of_kernels(rule, dtype, kernels):
    """Short sequences, cut within a tile and at its end; the rest of the contract is above."""
    query, key, value = draw(Sizes(2, 2, 1, 7, 19, 3, 5), dtype)

    def rows(start, stop, b=slice(None), h=slice(None)):
        given = (query[b, h, start:stop], key[b], value[b])
        keywords = {"query_offset": start + 12, "backend": kernels} | rule
        return mhakit.attention(*given, **keywords, return_lse=True)

    whole = rows(0, 7)
    assert rule or not np.array_equal(whole[1][:, :, 0], whole[1][:, :, 1])
    for start, stop in [(0, 1), (1, 4), (5, 7)] if kernels == "cuda" else [(0, 6), (1, 7)]:
        for part, all_rows in zip(rows(start, stop), whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[:, :, start:stop])
    for part, all_rows in zip(rows(0, 7, slice(1, 2), slice(1, 2)), whole, strict=True):
        np.testing.assert_array_equal(part, all_rows[1:, 1:])


@pytest.mark.parametrize("T", [130, 2])
def test_3_every_number_of_threads_gives_the_same_bits(T, form):
    import numba

    arrays = draw(Sizes(2, 4, 2, T, 1300, 20, 12), np.float32)
    results = []
    for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        numba.set_num_threads(threads)
        results += [mhakit.attention(*arrays, causal="bottom_right") for _ in range(3)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("T", [256, 1024])
def test_4_attention_allocates_nothing_of_size_T_by_S(T):
    query, key, value = draw(Sizes(1, 2, 2, T, T, 16, 16), np.float32)
    out = np.empty_like(query)
    for _ in range(2):
        tracemalloc.start()
        mhakit.attention(query, key, value, causal=True, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    plan = mhakit.explain(query, key, value, causal=True)
    lse = 4 * 2 * T
    assert peak < lse + plan.scratch_bytes + 20_000, "more than an lse, scratch and small change"
    assert plan.scratch_bytes < 4 * 256 * 256


def test_4_the_scratch_of_the_kernel_does_not_grow_with_T():
    scratch = {
        T: mhakit.explain(*draw(Sizes(1, 2, 2, T, T, 16, 16), np.float32)).scratch_bytes
        for T in (512, 2048)
    }
    assert scratch[512] == scratch[2048]


def test_4_weights_of_a_few_rows_take_the_memory_of_those_rows():
    query, key, _ = draw(Sizes(1, 4, 4, 3000, 3000, 8, 8), np.float16)
    chosen = {"heads": [1], "queries": [0, 2999]}
    mhakit.attention_weights(query, key, **chosen)
    tracemalloc.start()
    mhakit.attention_weights(query, key, **chosen)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 2 * 3000 + 20_000


def test_5_explain_names_the_backend_that_runs(backend):
    query, key, value = draw(GRID["no two sizes equal"], np.float32)
    plan = mhakit.explain(query, key, value, backend=backend)
    assert plan.backend == backend
    assert plan.kernel.startswith(backend)
    if backend == "cpu":
        assert mhakit.explain(query, key, value) == plan


@pytest.mark.parametrize("function", [*FUNCTIONS, "explain"])
def test_6_callers_arrays_are_never_written(function, dtype, backend):
    query, key, value = draw(SIZES, dtype)
    keywords, _ = hiding_keywords("mask")
    keywords["bias"] = np.ones((SIZES.T, SIZES.S), np.float64)
    keywords["key_lengths"] = np.array([SIZES.S // 4, SIZES.S - 2])
    given = [query, key, value, *keywords.values()]
    before = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    arrays = (query, key, value) if function in ("attention", "explain") else (query, key)
    getattr(mhakit, function)(*arrays, **keywords, backend=backend)
    for was, now in zip(before, given, strict=True):
        np.testing.assert_array_equal(was, now)


def strided(array, kind):
    """Return the same numbers lying differently in memory."""
    if kind == "every second":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if kind == "backwards":
        return np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]
    if kind == "transposed":
        return np.ascontiguousarray(array.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    if kind == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["every second", "backwards", "transposed", "unaligned"])
def test_6_strides_change_no_bit_and_make_no_copy(kind, dtype):
    sizes = Sizes(2, 4, 2, 70, 150, 64, 64)
    arrays = draw(sizes, dtype)
    plain = mhakit.attention(*arrays, causal="bottom_right")
    views = [strided(array, kind) for array in arrays]
    out = strided(np.zeros_like(plain), kind)
    mhakit.attention(*views, causal="bottom_right", out=out)
    tracemalloc.start()
    mhakit.attention(*views, causal="bottom_right", out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(out, plain)
    both = [attention_and_weights(*given, causal="bottom_right") for given in (arrays, views)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)
    scratch = mhakit.explain(*views, causal="bottom_right").scratch_bytes
    assert peak - scratch < min(array.nbytes for array in arrays) / 2, "an input was copied"


def test_6_the_BTHD_layout_takes_and_gives_the_same_numbers(dtype, backend):
    query, key, value = draw(SIZES, dtype)
    plain = mhakit.attention(query, key, value, backend=backend)
    swapped = [np.ascontiguousarray(array.swapaxes(1, 2)) for array in (query, key, value)]
    result, lse = mhakit.attention(*swapped, layout="BTHD", return_lse=True, backend=backend)
    assert result.flags.c_contiguous
    assert lse.shape == (SIZES.B, SIZES.H, SIZES.T)
    np.testing.assert_array_equal(result.swapaxes(1, 2), plain)
    weights = mhakit.attention_weights(*swapped[:2], layout="BTHD", backend=backend)
    np.testing.assert_array_equal(weights, mhakit.attention_weights(query, key, backend=backend))
    summed = mhakit.weighted_sum(weights, swapped[2], layout="BTHD", backend=backend)
    assert summed.shape == result.shape
    both = attention_and_weights(*swapped, layout="BTHD", backend=backend)
    assert both[0].flags.c_contiguous
    np.testing.assert_array_equal(both[1], weights)
    plain, _ = attention_and_weights(query, key, value, backend=backend)
    np.testing.assert_array_equal(both[0].swapaxes(1, 2), plain)


def test_6_outputs_that_were_poisoned_are_written_throughout(dtype, backend):
    query, key, value = draw(SIZES, dtype)
    keywords, _ = hiding_keywords("window")
    out = np.full((SIZES.B, SIZES.H, SIZES.T, SIZES.E), np.nan, dtype)
    assert mhakit.attention(query, key, value, **keywords, out=out, backend=backend) is out
    expected, _ = budget("attention", query, key, value, **keywords)
    assert_within(out, expected)
    scores = np.full((SIZES.B, SIZES.H, SIZES.T, SIZES.S), np.nan, computation_dtype(dtype))
    mhakit.attention_scores(query, key, **keywords, out=scores, backend=backend)
    assert not np.isnan(scores).any()


def test_without_B_everything_is_the_first_of_a_batch(dtype, backend):
    query, key, value = draw(Sizes(1, 4, 2, 9, 12, 8, 8), dtype)
    keywords = {"key_lengths": 11, "causal": True, "query_offset": 2, "sinks": np.ones(4)}
    mask = np.random.default_rng(0).random((4, 9, 12)) < 0.8
    output, lse = mhakit.attention(
        query[0], key[0], value[0], mask=mask, **keywords, return_lse=True, backend=backend
    )
    expected, expected_lse = mhakit.attention(
        query, key, value, mask=mask[None], **keywords, return_lse=True, backend=backend
    )
    np.testing.assert_array_equal(output, expected[0])
    np.testing.assert_array_equal(lse, expected_lse[0])
    weights = mhakit.attention_weights(query[0], key[0], heads=[1], backend=backend)
    assert weights.shape == (1, 9, 12)
    merged, _ = mhakit.merge_attention((output, lse), backend=backend)
    np.testing.assert_array_equal(merged, output)
