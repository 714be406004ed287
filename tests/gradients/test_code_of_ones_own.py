"""Gradients by the code of a combination: its plan_vjp, or its backward."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.gradients import B, E, Gate, H, M, Sine, T, assert_gradients
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec


@pytest.mark.parametrize("training", [False, True])
def test_gradients_flow_through_the_plan_to_heads_hidden_states_and_parameters(backend, training):
    learned = {"gate": draw(M, H, seed=1), "weight": draw(H * E, M, seed=2)}
    x = draw(B, T, M, seed=3)
    keywords = {"hidden_states": x, "training": training, "rng": 7}
    assert_gradients(Gate(), draw(B, H, T, E), learned, backend, **keywords)


def test_the_batch_axis_may_be_left_out_of_gradients_too(backend):
    learned = {"gate": draw(M, H, seed=1), "weight": draw(H * E, M, seed=2)}
    heads, x, dY = draw(1, H, T, E), draw(1, T, M, seed=3), draw(1, T, M, seed=4)
    whole = mhakit.combine_vjp(heads, Gate, learned, hidden_states=x, backend=backend)[1](dY)
    output, pullback = mhakit.combine_vjp(
        heads[0], Gate, learned, hidden_states=x[0], backend=backend
    )
    alone = pullback(dY[0])
    assert output.shape == (T, M)
    np.testing.assert_array_equal(alone.heads, whole.heads[0])
    np.testing.assert_array_equal(alone.hidden_states, whole.hidden_states[0])


def test_a_transposed_parameter_in_a_field_is_not_taken_for_the_parameter():
    class Transposed(HeadCombination):
        name, reference = "transposed", "a test"

        def parameters(self, shape):
            return {"matrix": ParameterSpec((shape.head_width, shape.head_width))}

        def plan(self, heads, parameters, **given):
            return CombinationPlan(1, parameters["matrix"].T)

        def plan_vjp(self, d_plan, heads, parameters, **given):
            return None, None, {"matrix": d_plan.weight.T}

    assert_gradients(Transposed(), draw(B, H, T, E), {"matrix": draw(E, E, seed=1)}, "cpu")


def test_a_strategy_without_a_plan_runs_its_backward(backend):
    keywords = {"hidden_states": draw(B, T, E, seed=3)}
    assert_gradients(Sine(), draw(B, H, T, E), {"gain": draw(E)}, backend, **keywords)


def test_what_backward_returns_is_copied_from_its_residuals():
    class Lender(Sine):
        def backward(self, d_output, residuals, parameters):
            return residuals[0], residuals[1], {"gain": parameters["gain"]}

    heads, x, gain = draw(B, H, T, E), draw(B, T, E), draw(E)
    _, pullback = mhakit.combine_vjp(heads, Lender, {"gain": gain}, hidden_states=x)
    gradients = pullback(np.ones((B, T, E)))
    for gradient, array in zip(
        (gradients.heads, gradients.hidden_states, gradients.parameters["gain"]),
        (heads, x, gain),
        strict=True,
    ):
        assert not np.shares_memory(gradient, array)
        gradient[...] = 0
