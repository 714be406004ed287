"""A layer no two sizes of which are equal, and a combination that reads its input."""

from __future__ import annotations

import numpy as np

import mhakit
from material.arrays import draw
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec

B, T, S, M = 2, 5, 7, 12
H, G, D, E = 6, 2, 3, 4


def owner(array):
    """Return the array that owns the memory of a view."""
    return array if array.base is None else owner(array.base)


def grouped(**keywords):
    """Return a layer no two sizes of which are equal, with biases that are not 0."""
    given = {"num_kv_heads": G, "head_width": D, "value_width": E, "dtype": np.float64, "rng": 0}
    layer = mhakit.MultiHeadAttention(M, H, **{**given, **keywords})
    biases = {name: view for name, view in layer.parameters().items() if name.endswith("_bias")}
    layer.set_parameters({name: draw(*view.shape, seed=1) for name, view in biases.items()})
    return layer


class Gate(HeadCombination):
    """Reads the layer's input and draws when training."""

    name = "gate"
    reference = "a test"
    uses_hidden_states = True
    stochastic = True

    def parameters(self, shape):
        return {"gate": ParameterSpec((shape.model_width, shape.num_heads), "xavier_uniform")}

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        gate = (hidden_states @ parameters["gate"]).swapaxes(1, 2)[..., None]
        return CombinationPlan(3, head_weights=gate * (1 if rng is None else rng.random()))
