"""Multiply two projections of the heads by one another, and project the product.

``Y = ((C U) * (C V)) P + b`` with ``C = concat_h(Z_h)`` (T, H*E), U and V (H*E, R), P (R, M),
b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import (
    Array,
    CombinationCost,
    HeadCombination,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)
from mhakit_builtins.differentiable import linear_vjp

__all__ = ["Bilinear"]


class Bilinear(HeadCombination):
    """Let every element of every head meet every other in a product: low-rank bilinear pooling.

    ``Y = ((C U) * (C V)) P + b``, C the heads side by side. ``left`` U and ``right`` V (H*E, R)
    start uniform within 1/sqrt(H*E) of 0, ``weight`` P (R, M) within 1/sqrt(R), ``bias`` b (M,)
    at 0.

    Parameters
    ----------
    rank : int, optional
        R, at least 1; None is M / 3, rounded up, at which it costs about what ``concat_project``
        costs where M is H*E.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``rank`` is no int of at least 1.

    Notes
    -----
    It is of the second degree: heads twice as large give four times the Y, the heads negated give
    the same Y, and near 0 hardly anything passes. There is no term of the first degree beside it.

    References
    ----------
    Li et al., Neuron Interaction Based Representation Composition for Neural Machine Translation,
    arXiv:1911.09877 (low-rank bilinear pooling).

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> {name: spec.shape for name, spec in Bilinear(rank=5).parameters(shape).items()}
    {'left': (32, 5), 'right': (32, 5), 'weight': (5, 16), 'bias': (16,)}
    """

    name = "bilinear"
    reference = "arXiv:1911.09877"
    linear_in_heads = False

    def __init__(self, rank: int | None = None, bias: bool = True) -> None:
        if rank is not None and not (isinstance(rank, int) and rank >= 1):
            raise ParameterError(
                f"rank of 'bilinear' must be None or an int of at least 1, got {rank!r}; "
                "None is a third of M"
            )
        self.rank = rank
        self.bias = bias

    def parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``left``, ``right`` (H*E, R), ``weight`` (R, M), and maybe ``bias`` (M,)."""
        M = shape.model_width
        R = -(-M // 3) if self.rank is None else self.rank
        specs = {
            "left": ParameterSpec((shape.concat_width, R), "uniform_fan_in"),
            "right": ParameterSpec((shape.concat_width, R), "uniform_fan_in"),
            "weight": ParameterSpec((R, M), "uniform_fan_in"),
        }
        if self.bias:
            specs["bias"] = ParameterSpec((M,), "zeros")
        return specs

    def forward(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> tuple[Array, object]:
        """Return the output (B, T, M) and, to go back by, C and its two projections."""
        B, H, T, E = heads.shape
        concat = heads.transpose(0, 2, 1, 3).reshape(B, T, H * E)
        left, right = concat @ parameters["left"], concat @ parameters["right"]
        output = (left * right) @ parameters["weight"]
        if self.bias:
            output += parameters["bias"]
        return output, _Factors(concat, left, right, heads.shape)

    def backward(
        self, d_output: Array, residuals: object, parameters: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        """Return the gradients of Z and of the four parameters."""
        assert isinstance(residuals, _Factors)
        concat, left, right, (B, H, T, E) = residuals
        d_product, d_weight = linear_vjp(d_output, left * right, parameters["weight"])
        d_concat, d_left = linear_vjp(d_product * right, concat, parameters["left"])
        d_concat_too, d_right = linear_vjp(d_product * left, concat, parameters["right"])
        gradients = {"left": d_left, "right": d_right, "weight": d_weight}
        if self.bias:
            gradients["bias"] = d_output.sum(axis=(0, 1))
        d_concat += d_concat_too
        return d_concat.reshape(B, T, H, E).transpose(0, 2, 1, 3), None, gradients

    def cost(self, shape: HeadShape, B: int, T: int) -> CombinationCost:
        """Return the cost of the three products, R multiplications between them, and b."""
        R, M = self.parameters(shape)["weight"].shape
        flops = B * T * (4 * shape.concat_width * R + R + 2 * R * M + self.bias * M)
        return replace(super().cost(shape, B, T), flops=flops)


class _Factors(NamedTuple):
    """C (B, T, H*E), C U and C V (B, T, R), and the shape of the heads."""

    concat: Array
    left: Array
    right: Array
    heads: tuple[int, ...]


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Bilinear`."""
    register(Bilinear)
