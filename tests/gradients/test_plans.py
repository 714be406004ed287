"""Gradients through a plan, which needs no code of its own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.gradients import SHAPES, B, E, Factors, H, M, T, assert_gradients
from mhakit.backends.cpu import launch
from mhakit.plugin_api import CombinationPlan, HeadCombination


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("groups", [1, 2, H])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_of_parameters_needs_no_code_to_be_differentiated(backend, shape, groups, reduce):
    strategy = Factors(SHAPES[shape], groups, reduce)
    assert_gradients(strategy, draw(B, H, T, E), strategy.learned(), backend)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("shape", ["by head", "by word", "by head and channel", "by element"])
def test_both_forms_of_the_kernel_give_the_same_bits(monkeypatch, shape, real, reduce):
    wide = 45  # numbers of a head: several registers of them, and some over
    sizes = tuple(wide if n == E else n for n in SHAPES[shape])
    strategy, heads = Factors(sizes, 2, reduce, False), draw(B, H, T, wide, dtype=real)
    learned = {"factors": draw(*sizes, seed=3)}
    results = []
    for limit in (0, float("inf")):
        monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
        _, pullback = mhakit.combine_vjp(heads, strategy, learned)
        results.append(pullback(draw(B, T, 2 * wide, seed=4)))
    parallel, serial = results
    np.testing.assert_array_equal(parallel.heads, serial.heads)
    np.testing.assert_array_equal(parallel.parameters["factors"], serial.parameters["factors"])


def test_without_a_projection_the_gradient_is_memory_of_its_own(backend):
    for groups, shape in ((H, ()), (1, (H, 1, 1))):
        strategy = Factors(shape, groups, projected=False)
        assert_gradients(strategy, draw(B, H, T, E), strategy.learned(), backend)

    class Plain(HeadCombination):
        name, reference = "plain", "a test"

        def plan(self, heads, parameters, **given):
            return CombinationPlan(heads.shape[1])

    dY = draw(B, T, H * E)
    gradients = mhakit.combine_vjp(draw(B, H, T, E), Plain, backend=backend)[1](dY)
    assert not np.shares_memory(gradients.heads, dY)
    np.testing.assert_array_equal(gradients.heads.swapaxes(1, 2).reshape(dY.shape), dY)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("shape", ["by head", "by element"])
def test_a_head_of_weight_zero_gets_zero_and_hides_what_it_holds(backend, shape, reduce):
    strategy, heads = Factors(SHAPES[shape], 2, reduce), draw(B, H, T, E)
    learned = strategy.learned()
    learned["factors"][..., 1, :, :] = 0
    clean = mhakit.combine_vjp(heads, strategy, learned, backend=backend)[1](np.ones((B, T, M)))
    assert not clean.heads[:, 1].any()
    if reduce == "sum":  # the weight could grow: its gradient is <Z, D>, not 0
        assert clean.parameters["factors"][..., 1, :, :].all()
    for garbage in (np.nan, np.inf, -np.inf):
        heads[:, 1] = garbage
        _, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
        gradients = pullback(np.ones((B, T, M)))
        np.testing.assert_array_equal(gradients.heads, clean.heads)
        factors = gradients.parameters["factors"]
        assert not factors[..., 1, :, :].any()
        for h in (0, 2, 5):
            np.testing.assert_array_equal(
                factors[..., h, :, :], clean.parameters["factors"][..., h, :, :]
            )
    heads[:, 1] = 1
    _, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
    with np.errstate(invalid="ignore"):
        assert not pullback(np.full((B, T, M), np.inf)).heads[:, 1].any()


def test_of_equally_large_heads_the_first_gets_it_all_and_a_nan_wins(backend):
    class Largest(HeadCombination):
        name, reference = "largest", "a test"

        def plan(self, heads, parameters, **given):
            return CombinationPlan(1, reduce="max")

    heads = np.array([1.0, 3.0, 3.0, 2.0]).reshape(1, 4, 1, 1)
    gradients = mhakit.combine_vjp(heads, Largest, backend=backend)[1](np.full((1, 1, 1), 5.0))
    assert gradients.heads.ravel().tolist() == [0, 5, 0, 0]
    heads[0, 2:] = np.nan
    gradients = mhakit.combine_vjp(heads, Largest, backend=backend)[1](np.full((1, 1, 1), 5.0))
    assert gradients.heads.ravel().tolist() == [0, 0, 5, 0]


@pytest.mark.parametrize("name", ["concat_project", "average"])
def test_gradients_come_in_the_dtype_of_what_they_belong_to(backend, dtype, name):
    heads = draw(B, H, T, E, dtype=dtype)
    inner = E if name == "average" else H * E
    learned = {"weight": draw(inner, M, dtype=ml_dtypes.bfloat16), "bias": draw(M)}
    output, pullback = mhakit.combine_vjp(heads, name, learned, backend=backend)
    gradients = pullback(draw(B, T, M, dtype=np.float32, seed=5))
    assert output.dtype == gradients.heads.dtype == dtype
    assert gradients.hidden_states is None
    assert {n: g.dtype for n, g in gradients.parameters.items()} == {
        "weight": ml_dtypes.bfloat16,
        "bias": np.float64,
    }
    wide = {n: a.astype(np.float64) for n, a in learned.items()}
    exact = mhakit.combine_vjp(heads.astype(np.float64), name, wide, backend="reference")[1](
        draw(B, T, M, dtype=np.float32, seed=5).astype(np.float64)
    )
    rounding = 16 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(
        gradients.heads.astype(np.float64),
        exact.heads,
        rtol=0,
        atol=rounding * abs(exact.heads).max(),
    )


def test_no_words_give_gradients_of_zero(backend, dtype):
    for shape in ((B, H, 0, E), (0, H, T, E)):
        for strategy in (Factors(), Factors(groups=1, reduce="max")):
            learned = {name: np.ones(a.shape) for name, a in strategy.learned().items()}
            heads = np.empty(shape, dtype)
            output, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
            gradients = pullback(np.empty(output.shape))
            assert gradients.heads.shape == shape
            for name, gradient in gradients.parameters.items():
                assert gradient.shape == learned[name].shape
                assert not gradient.any()


def test_a_pullback_can_be_asked_twice_and_writes_nothing(backend):
    strategy, heads, dY = Factors(), draw(B, H, T, E), draw(B, T, M, seed=4)
    learned = strategy.learned()
    kept = [a.copy() for a in (heads, dY, *learned.values())]
    _, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
    first = pullback(dY)
    first.heads[...] = first.parameters["weight"][...] = 0  # the caller's own
    again, third = pullback(dY), pullback(dY)
    assert again.heads.any()
    np.testing.assert_array_equal(again.heads, third.heads)
    for array, before in zip((heads, dY, *learned.values()), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_a_parameter_that_lies_in_memory_by_strides_is_found_in_its_field(backend):
    strategy = Factors()
    learned = strategy.learned()
    learned["weight"] = np.asfortranarray(learned["weight"])
    learned["factors"] = draw(2 * H, 1, 1, seed=3)[::2]
    assert_gradients(strategy, draw(B, H, T, E), learned, backend)
