"""What is refused of gradients, and of the code that makes them."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.gradients import B, E, Factors, Gate, H, M, Sine, T
from mhakit.errors import BackendUnavailable, DTypeError, ParameterError, PluginError, ShapeError
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec


@pytest.mark.parametrize(
    ("dY", "error", "told"),
    [
        (draw(T, M), ShapeError, r"d_output must have the shape of the output, \(2, 40, 9\), got shape \(40, 9\)"),
        (draw(B, T, M + 1), ShapeError, r"d_output must have the shape of the output, .* got shape \(2, 40, 10\)"),
        (np.ones((B, T, M), int), DTypeError, r"d_output must be float64.*got int64"),
        ([1.0], DTypeError, r"d_output must be an array, got list"),
    ],
)  # fmt: skip
def test_a_gradient_that_does_not_fit_the_output_is_refused(dY, error, told):
    learned = {"weight": draw(E, M), "bias": draw(M)}
    _, pullback = mhakit.combine_vjp(draw(B, H, T, E), "average", learned)
    with pytest.raises(error, match=told):
        pullback(dY)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: mhakit.combine_vjp(draw(H, E), "average"), ShapeError, r"heads must be \(B, H, T, E\)"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), "averag"), PluginError, r"did you mean 'average'"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), "average", {"weight": draw(E, M)}), ParameterError, r"got none named 'bias'"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), Sine, {"gain": draw(E)}), ParameterError, r"hidden_states must be given"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), Factors, {}, backend="cuda"), ParameterError, r"got none named 'factors'"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), Factors(projected=False), {"factors": draw(H, 1, 1)}, backend="cuda"), BackendUnavailable, r"backend 'cuda'"),
    ],
)  # fmt: skip
def test_what_combine_refuses_its_gradient_refuses(call, error, told):
    with pytest.raises(error, match=told):
        call()


class Answering(HeadCombination):
    """A gradient of any kind, given when it is made; Z is scaled by a copy of its parameter."""

    name, reference = "answering", "a test"

    def __init__(self, answer=None, field="copied", reads=False):
        self.answer, self.field = answer, field
        self.uses_hidden_states = reads

    def parameters(self, shape):
        return {"gain": ParameterSpec((shape.num_heads,))}

    def plan(self, heads, parameters, **given):
        gain = parameters["gain"][:, None, None]
        return CombinationPlan(1, head_weights=gain if self.field == "own" else gain.copy())

    def plan_vjp(self, d_plan, heads, parameters, *, plan, hidden_states, training):
        return self.answer


GAIN = {"gain": np.zeros(H)}


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (Answering(None), r"d_heads, d_hidden_states, d_parameters from plan_vjp, got NoneType"),
        (Answering((None, GAIN)), r"d_heads, d_hidden_states, d_parameters from plan_vjp, got 2 values"),
        (Answering((None, None, [1])), r"d_parameters as a dict by name from plan_vjp, got list"),
        (Answering((None, None, {"gian": 1})), r"gradients of its parameters alone \(gain\) from plan_vjp, got 'gian'"),
        (Answering((None, None, {})), r"a gradient of 'gain', which is no field of its plan, from plan_vjp, got none"),
        (Answering((None, None, {"gain": np.zeros((H, 1))})), r"a gradient of 'gain' of shape \(6,\) from plan_vjp, got float64 of shape \(6, 1\)"),
        (Answering((None, None, {"gain": np.zeros(H, int)})), r"a gradient of 'gain' of shape \(6,\) from plan_vjp, got int64"),
        (Answering((None, None, {"gain": None})), r"a gradient of 'gain' of shape \(6,\) from plan_vjp, got None"),
        (Answering((np.zeros((B, T, E)), None, GAIN)), r"d_heads \(B, H, T, E\) = \(2, 6, 40, 7\) from plan_vjp, got float64 of shape \(2, 40, 7\)"),
        (Answering((None, np.zeros((B, T, E)), GAIN)), r"None for d_hidden_states, as uses_hidden_states is False, from plan_vjp, got ndarray"),
        (Answering((None, None, GAIN), reads=True), r"d_hidden_states \(B, T, M\) = \(2, 40, 7\), as it reads hidden_states, from plan_vjp, got None"),
        (Answering((None, None, GAIN), field="own"), r"no gradient of 'gain', which is a field of its plan that mhakit differentiates \(plan a copy .*\) from plan_vjp, got one"),
    ],
)  # fmt: skip
def test_a_plan_vjp_that_breaks_a_rule_is_refused_with_the_rule(strategy, told):
    x = draw(B, T, E)
    _, pullback = mhakit.combine_vjp(draw(B, H, T, E), strategy, {"gain": draw(H)}, hidden_states=x)
    with pytest.raises(PluginError, match=r"combination 'answering' must return " + told):
        pullback(np.ones((B, T, E)))


def test_a_strategy_whose_plan_reads_more_than_its_fields_must_say_how():
    class Silent(Answering):
        plan_vjp = HeadCombination.plan_vjp

    _, pullback = mhakit.combine_vjp(draw(B, H, T, E), Silent, {"gain": draw(H)})
    with pytest.raises(PluginError, match=r"'answering' must return a gradient of 'gain'"):
        pullback(np.ones((B, T, E)))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((None, np.zeros((B, T, E)), {"gain": np.zeros(E)}), r"must return d_heads .* from backward, got None"),
        ((np.zeros((B, H, T, E)), None, {"gain": np.zeros(E)}), r"must return d_hidden_states .* from backward, got None"),
        ((np.zeros((B, H, T, E)), np.zeros((B, T, E)), {}), r"must return a gradient of 'gain', .* from backward, got none"),
        (3, r"must return d_heads, d_hidden_states, d_parameters from backward, got int"),
        (KeyError("gain"), r"must run backward without an error, got KeyError: 'gain'"),
        (NotImplementedError(), r"must define backward to be differentiated, got forward alone"),
    ],
)  # fmt: skip
def test_a_backward_that_breaks_a_rule_is_refused_with_the_rule(answer, told):
    class Wrong(Sine):
        def backward(self, *_):
            if isinstance(answer, Exception):
                raise answer
            return answer

    _, pullback = mhakit.combine_vjp(
        draw(B, H, T, E), Wrong, {"gain": draw(E)}, hidden_states=draw(B, T, E)
    )
    with pytest.raises(PluginError, match=r"combination 'sine' " + told):
        pullback(np.ones((B, T, E)))


def test_a_plan_vjp_that_fails_is_named_with_its_cause():
    class Failing(Gate):
        def plan_vjp(self, *_, **__):
            raise IndexError("gate 7")

    learned = {"gate": draw(M, H), "weight": draw(H * E, M)}
    _, pullback = mhakit.combine_vjp(
        draw(B, H, T, E), Failing, learned, hidden_states=draw(B, T, M)
    )
    with pytest.raises(
        PluginError, match=r"'gate' must run plan_vjp without an error, got IndexError: gate 7"
    ):
        pullback(np.ones((B, T, M)))
