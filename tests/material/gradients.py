"""Combinations to differentiate, and every gradient of theirs held against central differences."""

from __future__ import annotations

import numpy as np

import mhakit
from material.arrays import draw
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec

B, H, T, E, M = 2, 6, 40, 7, 9


def slope(function, at, direction, step=1e-6):
    """Return the derivative along a direction; the step is too short to change a maximum."""
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)


class Factors(HeadCombination):
    """Learned factors of any shape, groups and reduction, projected."""

    name = "factors"
    reference = "a test"

    def __init__(self, shape=(H, 1, 1), groups=H, reduce="sum", projected=True):
        self.shape, self.groups, self.reduce = shape, groups, reduce
        self.projected = projected

    def parameters(self, shape):
        specs = {"factors": ParameterSpec(self.shape)}
        if self.projected:
            specs["weight"] = ParameterSpec((self.groups * shape.head_width, shape.model_width))
            specs["bias"] = ParameterSpec((shape.model_width,))
        return specs

    def plan(self, heads, parameters, **given):
        return CombinationPlan(
            self.groups,
            parameters.get("weight"),
            parameters.get("bias"),
            parameters["factors"],
            self.reduce,
        )

    def learned(self):
        learned = {"factors": draw(*self.shape, seed=3)}
        if self.projected:
            learned |= {"weight": draw(self.groups * E, M, seed=1), "bias": draw(M, seed=2)}
        return learned


SHAPES = {
    "one number": (),
    "by head": (H, 1, 1),
    "by batch and head": (B, H, 1, 1),
    "by word": (B, H, T, 1),
    "by word alone": (T, 1),
    "by element": (B, H, T, E),
    "by channel": (E,),
    "by head and channel": (H, 1, E),
}


def assert_gradients(strategy, heads, learned, backend, **keywords):
    """Hold every gradient against central differences of <output, d_output> in float64."""
    output, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend, **keywords)
    np.testing.assert_array_equal(
        output, mhakit.combine(heads, strategy, learned, backend=backend, **keywords)
    )
    dY = draw(*output.shape, seed=11)
    gradients = pullback(dY)

    def loss(z, values, keywords):
        return (mhakit.combine(z, strategy, values, backend="reference", **keywords) * dY).sum()

    sides = {"heads": (heads, gradients.heads, lambda z: loss(z, learned, keywords))}
    if gradients.hidden_states is not None:
        x = keywords["hidden_states"]
        sides["hidden_states"] = (
            x,
            gradients.hidden_states,
            lambda x: loss(heads, learned, {**keywords, "hidden_states": x}),
        )
    assert gradients.parameters.keys() == learned.keys()
    for name, value in learned.items():
        sides[name] = (
            value,
            gradients.parameters[name],
            lambda v, name=name: loss(heads, {**learned, name: v}, keywords),
        )
    for name, (at, gradient, function) in sides.items():
        assert gradient.shape == at.shape, name
        direction = draw(*at.shape, seed=12)
        terms = np.abs(gradient * direction).sum() + 1
        assert abs(slope(function, at, direction) - (gradient * direction).sum()) < 1e-7 * terms


class Gate(HeadCombination):
    """Gates, one a head, from the layer's input: all three gradients flow through the plan."""

    name = "gate"
    reference = "a test"
    uses_hidden_states = True
    stochastic = True

    def parameters(self, shape):
        return {
            "gate": ParameterSpec((shape.model_width, shape.num_heads)),
            "weight": ParameterSpec((shape.concat_width, shape.model_width)),
        }

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        logits = (hidden_states @ parameters["gate"]).swapaxes(1, 2)[..., None]
        gates = 1 / (1 + np.exp(-logits - heads.mean(axis=-1, keepdims=True)))
        if rng is not None:
            gates = gates * rng.random((heads.shape[0], heads.shape[1], 1, 1))
        return Drawn(heads.shape[1], parameters["weight"], head_weights=gates, logits=logits)

    def plan_vjp(self, d_plan, heads, parameters, *, plan, hidden_states, training):
        assert d_plan.weight is not None
        assert d_plan.bias is None
        assert not d_plan.head_weights.flags.writeable
        s = 1 / (1 + np.exp(-plan.logits - heads.mean(axis=-1, keepdims=True)))
        d_logits = d_plan.head_weights * plan.head_weights * (1 - s)
        by_word = d_logits[..., 0].swapaxes(1, 2)
        d_gate = np.einsum("btm,bth->mh", hidden_states, by_word)
        d_heads = np.broadcast_to(d_logits / heads.shape[-1], heads.shape)
        return d_heads, by_word @ parameters["gate"].T, {"gate": d_gate}


class Drawn(CombinationPlan):
    """A plan that carries its logits from plan to plan_vjp."""

    def __init__(self, *args, logits, **fields):
        super().__init__(*args, **fields)
        object.__setattr__(self, "logits", logits)


class Sine(HeadCombination):
    name, reference, linear_in_heads = "sine", "a test", False
    uses_hidden_states = True

    def parameters(self, shape):
        return {"gain": ParameterSpec((shape.head_width,))}

    def forward(self, heads, parameters, *, hidden_states, training, rng):
        gained = np.sin(heads).mean(axis=1) * parameters["gain"]
        return gained * hidden_states, (heads, hidden_states, gained)

    def backward(self, d_output, residuals, parameters):
        heads, x, gained = residuals
        d_gained = d_output * x
        d_heads = np.cos(heads) * (d_gained * parameters["gain"])[:, None] / heads.shape[1]
        d_gain = (d_gained * np.sin(heads).mean(axis=1)).sum(axis=(0, 1))
        return d_heads, d_output * gained, {"gain": d_gain}
