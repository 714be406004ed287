"""One layer of the encoder, and the plain parts it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.layer import MultiHeadAttention
from mhakit.models.checkpoint import Config, Tensors, missing_extra
from mhakit.models.run import LayerRun

__all__ = ["EncoderLayer", "LayerNorm", "Linear", "gelu"]

Floats = NDArray[np.float32]


class EncoderLayer:
    """One layer: attend, combine, feed forward, each with its residual and normalisation.

    Parameters
    ----------
    tensors : Tensors
        The checkpoint's parameters.
    prefix : str
        What the names of this layer's begin with.
    config : Config
        The sizes.

    Attributes
    ----------
    attention : MultiHeadAttention
        The layer's heads and the combination they were trained with.
    """

    def __init__(self, tensors: Tensors, prefix: str, config: Config) -> None:
        H, M, D = config.num_heads, config.model_width, config.head_width
        self.attention = MultiHeadAttention(M, H, dtype=np.float32, rng=0)
        parameters: dict[str, NDArray[Any]] = {}
        for role in ("query", "key", "value"):
            weight = tensors.take(f"{prefix}attention.self.{role}.weight", (M, M))
            bias = tensors.take(f"{prefix}attention.self.{role}.bias", (M,))
            parameters[f"{role}_weight"] = weight.reshape(H, D, M).transpose(0, 2, 1)
            parameters[f"{role}_bias"] = bias.reshape(H, D)
        output = f"{prefix}attention.output"
        parameters["combine.weight"] = tensors.take(f"{output}.dense.weight", (M, M)).T
        parameters["combine.bias"] = tensors.take(f"{output}.dense.bias", (M,))
        self.attention.set_parameters(parameters)
        self._attention_norm = LayerNorm(tensors, f"{output}.LayerNorm", config)
        inner = config.inner_width
        self._widen = Linear(tensors, f"{prefix}intermediate.dense", inner, M)
        self._narrow = Linear(tensors, f"{prefix}output.dense", M, inner)
        self._norm = LayerNorm(tensors, f"{prefix}output.LayerNorm", config)

    def run(self, hidden_states: Floats, lengths: NDArray[np.int64]) -> LayerRun:
        """Run the layer on (B, T, M), sources at and past ``lengths`` (B,) hidden."""
        heads = self.attention.heads(hidden_states, key_lengths=lengths)
        combined = self.attention.combine(heads, hidden_states=hidden_states)
        states = self._attention_norm(hidden_states + combined)
        output = self._norm(states + self._narrow(gelu(self._widen(states))))
        return LayerRun(self.attention, lengths, hidden_states, heads, combined, output)


class Linear:
    """x W + b, with W (in, out) as a view of the checkpoint's (out, in)."""

    def __init__(self, tensors: Tensors, name: str, outputs: int, inputs: int) -> None:
        self.weight = tensors.take(f"{name}.weight", (outputs, inputs)).T
        self.bias = tensors.take(f"{name}.bias", (outputs,))

    def __call__(self, x: Floats) -> Floats:
        """Return (B, T, out) of (B, T, in)."""
        return x @ self.weight + self.bias


class LayerNorm:
    """Each vector less its mean, over its standard deviation, scaled and shifted."""

    def __init__(self, tensors: Tensors, name: str, config: Config) -> None:
        self.weight = tensors.take(f"{name}.weight", (config.model_width,))
        self.bias = tensors.take(f"{name}.bias", (config.model_width,))
        self.epsilon = np.float32(config.epsilon)

    def __call__(self, x: Floats) -> Floats:
        """Return (B, T, M) of (B, T, M)."""
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        normed: Floats = centred / np.sqrt(variance + self.epsilon) * self.weight + self.bias
        return normed


def gelu(x: Floats) -> Floats:
    """Return x times the normal distribution function at x, by the exact error function."""
    try:
        from scipy.special import erf
    except ImportError as error:
        raise missing_extra(error) from error
    half = np.float32(0.5)
    activated: Floats = half * x * (1 + erf(x * np.float32(np.sqrt(0.5))))
    return activated
