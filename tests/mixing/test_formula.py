"""Mixed attention is the formula of talking heads, and the identity is plain attention."""

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.mixings import RULES, H, Idle, K, S, T, budgets, formula, inputs, visibility
from mhakit.testing import Sizes, assert_within, budget, draw


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


def test_methods_left_out_mix_nothing():
    arrays = draw(Sizes(2, 4, 4, 7, 9, 8, 6), np.float32)
    expected, _ = budget("attention", *arrays)
    assert_within(mhakit.mixed_attention(*arrays, Idle), expected)


def test_each_mix_may_be_left_out():
    arrays, learned = inputs(heads=(6, 6, 6))
    seen = visibility("nothing", 6)[1]
    talking = mhakit.registry.find_mixing("talking_heads")
    for option, name in (("scores", "score_projection"), ("weights", "weight_projection")):
        expected, _ = budgets(arrays, learned | {name: np.eye(6)}, seen)
        rest = {other: array for other, array in learned.items() if other != name}
        output = mhakit.mixed_attention(*arrays, talking(**{option: False}), rest)
        assert_within(output, expected, option)
