"""Device arrays in, device arrays out: results lie where the inputs do, with the same numbers."""

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.device_arrays import (
    KEY,
    ON_DEVICE,
    QUERY,
    SCALED,
    SIZES,
    VALUE,
    Elsewhere,
    Held,
    Tensor,
    at,
)
from mhakit.errors import BackendUnavailable, DTypeError, ParameterError, ShapeError
from mhakit.testing import assert_within, budget, draw


@pytest.mark.parametrize("kind", ON_DEVICE)
def test_device_arrays_in_device_arrays_out_the_same_numbers(kind, dtype, device):
    hold = ON_DEVICE[kind]
    query, key, value = draw(SIZES, dtype)
    mask = np.random.default_rng(0).random((4, 1, 9)) < 0.7
    keywords = {"causal": "bottom_right", "softcap": 2.0, "key_lengths": [9, 5]}
    held = {"mask": mask, "bias": np.linspace(-1, 1, 9, dtype=np.float32), "sinks": np.ones(4)}
    there = {name: hold(array) for name, array in held.items()}
    output, lse = mhakit.attention(
        hold(query), hold(key), hold(value), **keywords, **there, return_lse=True
    )
    expected = mhakit.attention(
        query, key, value, **keywords, **held, return_lse=True, backend="cuda"
    )
    np.testing.assert_array_equal(at(output).view(dtype), expected[0])
    np.testing.assert_array_equal(at(lse), expected[1])


def test_every_verb_keeps_arrays_on_the_device(device):
    query, key, value = map(Held, (QUERY, KEY, VALUE))
    given = {"backend": "cuda"}
    scores = mhakit.attention_scores(query, key)
    np.testing.assert_array_equal(at(scores), mhakit.attention_scores(QUERY, KEY, **given))
    weights = mhakit.attention_weights(query, key, heads=[3, 0], queries=[1])
    expected = mhakit.attention_weights(QUERY, KEY, heads=[3, 0], queries=[1], **given)
    np.testing.assert_array_equal(at(weights), expected)
    weights = mhakit.softmax(scores)
    summed = mhakit.weighted_sum(weights, value)
    np.testing.assert_allclose(
        at(summed), mhakit.attention(QUERY, KEY, VALUE), rtol=1e-5, atol=1e-6
    )
    part = mhakit.attention(query, key, value, return_lse=True)
    merged, _ = mhakit.merge_attention(part)
    np.testing.assert_array_equal(at(merged), at(part[0]))
    plan = mhakit.explain(query, key, value)
    assert (plan.backend, plan.kernel) == ("cuda", "cuda.attention, plain blocks")
    assert plan.why.startswith("Numba's simulator has no tensor cores; plain blocks take")


def test_strides_of_a_device_are_read_as_they_are(device):
    across = [np.asfortranarray(array) for array in (QUERY, KEY, VALUE)]
    backwards = [np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1] for array in across]
    expected = mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
    for arrays in (across, backwards):
        np.testing.assert_array_equal(at(mhakit.attention(*map(Held, arrays))), expected)
    swapped = [Held(array.swapaxes(1, 2)) for array in (QUERY, KEY, VALUE)]
    result = at(mhakit.attention(*swapped, layout="BTHD"))
    np.testing.assert_array_equal(result.swapaxes(1, 2), expected)
    alone = mhakit.attention(*(Held(array[0]) for array in (QUERY, KEY, VALUE)), return_lse=True)
    np.testing.assert_array_equal(at(alone[0]), expected[0])
    assert at(alone[1]).shape == (4, 3)


def test_out_is_written_where_it_lies(device):
    out = np.full((2, 4, 3, 5), np.nan, np.float32)
    held = Held(out)
    assert mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), out=held) is held
    np.testing.assert_array_equal(out, mhakit.attention(QUERY, KEY, VALUE, backend="cuda"))


BAD_OUTS = {
    "on the host": (lambda: np.zeros((2, 4, 3, 5), np.float32), DTypeError, "out must be an array on the inputs' CUDA device, got ndarray"),
    "of another shape": (lambda: Held(np.zeros((2, 4, 3, 4), np.float32)), ShapeError, r"out must have shape \(2, 4, 3, 5\), got shape \(2, 4, 3, 4\)"),
    "of another dtype": (lambda: Held(np.zeros((2, 4, 3, 5))), DTypeError, "out must have dtype float32, got float64"),
    "read-only": (lambda: Held(np.zeros((2, 4, 3, 5), np.float32), data=(4096, True)), ParameterError, "out must be writeable, got a read-only array"),
    "an input": (lambda: Held(VALUE.reshape(-1)[: 2 * 4 * 3 * 1].reshape(2, 4, 3, 1).repeat(5, 3)[..., :5], data=(VALUE.ctypes.data, False)), ParameterError, "out must share no memory with value"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OUTS)
def test_an_out_that_does_not_fit_is_named(name, device):
    make, error, message = BAD_OUTS[name]
    with pytest.raises(error, match=message):
        mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), out=make())


def test_arrays_on_two_devices_are_named(device):
    message = "key must lie on the device of the first array, CUDA device 0, got one on CUDA device 1; copy it there"
    with pytest.raises(ParameterError, match=message):
        mhakit.attention(Tensor(QUERY), Elsewhere(KEY), Tensor(VALUE))


def test_heads_on_a_device_are_combined_there(device):
    combined = mhakit.combine(Held(QUERY), "head_scale", SCALED)
    expected = mhakit.combine(QUERY, "head_scale", SCALED, backend="cuda")
    np.testing.assert_array_equal(at(combined), expected)
    learned = {"weight": np.ones((3, 6), np.float32), "bias": np.ones(6, np.float32)}
    there = {name: Held(array) for name, array in learned.items()}
    for parameters in (learned, there):
        result = at(mhakit.combine(Held(QUERY[0]), "sum", parameters))
        np.testing.assert_array_equal(
            result, mhakit.combine(QUERY[0], "sum", learned, backend="cuda")
        )


def test_a_combination_that_computes_in_numpy_is_refused_by_name(device):
    message = "combination 'attention_over_heads' must plan without reading arrays that are on a CUDA device, got .*; copy them to the host"
    learned = {"query": np.ones((12, 3)), "weight": np.ones((3, 12)), "bias": np.ones(12)}
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.combine(
            Held(QUERY),
            "attention_over_heads",
            learned,
            hidden_states=Held(np.ones((2, 3, 12), np.float32)),
        )

    class Forward(mhakit.plugin_api.HeadCombination):
        name = "forward"
        reference = "a test"

        def parameters(self, shape):
            return {}

        def forward(self, heads, parameters, **given):
            return heads.sum(axis=1), None

    message = "combination 'forward' must return a plan to run on backend 'cuda', got one that computes in NumPy; use backend='cpu'"
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.combine(QUERY, Forward(), backend="cuda")


def test_bfloat16_is_rounded_and_widened_as_ml_dtypes_does(simulator):
    """Half of the numbers lie half way between two: a tie goes to the even one."""
    from mhakit.backends.cuda.storage import reader, writer

    bits = np.random.default_rng(0).integers(0, 2**31, 400, np.uint32)
    bits[::2] = bits[::2] & 0xFFFF0000 | 0x8000
    numbers = [*bits.view(np.float32), np.float32(np.inf), np.float32(-0.0), np.float32(np.nan)]
    store, read = writer("bfloat16").py_func, reader("bfloat16", np.float32).py_func
    for number in numbers:
        exact = np.float32(number).astype(ml_dtypes.bfloat16)
        stored = store(np.float32(number))
        np.testing.assert_array_equal(
            np.uint16(stored).view(ml_dtypes.bfloat16).astype(float), exact.astype(float)
        )
        np.testing.assert_array_equal(read(stored), exact.astype(np.float32))


def test_score_args_on_the_device_or_the_host_are_read(device):
    def added(score, b, h, t, s, tables):
        return score + tables[0][s]

    table = np.linspace(-1, 1, KEY.shape[2], dtype=np.float32)
    given = {"score_mod": added, "score_args": ((table,),)}
    expected, _ = budget("attention", QUERY, KEY, VALUE, **given)
    for one in (Held(table), table):
        given["score_args"] = ((one,),)
        found = mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE), **given)
        assert_within(at(found), expected)
