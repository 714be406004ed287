"""Gate the heads by the layer's input, concatenate and project.

``Y = (concat_h(Z_h) * sigmoid(x W_g + c)) W_O + b`` with x (T, M), W_O (H*E, M), b (M,): W_g (M, H)
and c (H,) give a gate for each head, W_g (M, H*E) and c (H*E,) one for each element of each head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import (
    Array,
    CombinationPlan,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)
from mhakit_builtins.differentiable import linear_vjp, sigmoid, sigmoid_vjp
from mhakit_builtins.projecting import Projecting

__all__ = ["GatedElements", "GatedHeads"]


class _Gated(Projecting):
    """What both have in common: only the width of the gate differs."""

    reference = "arXiv:2505.06708"
    uses_hidden_states = True

    def __init__(self, gate_bias: float | None = None, bias: bool = True) -> None:
        super().__init__(bias)
        if gate_bias is not None and not np.isfinite(gate_bias):
            raise ParameterError(
                f"gate_bias of {self.name!r} must be None or a finite number, got {gate_bias!r}; "
                "a gate of a bias of 20 is open to float32's last digit"
            )
        self.gate_bias = None if gate_bias is None else float(gate_bias)

    @abstractmethod
    def gates(self, shape: HeadShape) -> int:
        """Return how many gates a word has."""

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``gate`` (M, gates) and, where a bias was asked for, ``gate_bias`` (gates,)."""
        gates = self.gates(shape)
        specs = {"gate": ParameterSpec((shape.model_width, gates), "uniform_fan_in")}
        if self.gate_bias is not None:
            start = self.gate_bias
            specs["gate_bias"] = ParameterSpec((gates,), lambda rng, shape: np.full(shape, start))
        return specs

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return x W_g, the bias, four operations for each sigmoid, and H * E multiplications."""
        gates = self.gates(shape)
        biased = self.gate_bias is not None
        return (2 * shape.model_width + biased + 4) * gates + shape.concat_width

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per head, weighted by its gates."""
        assert hidden_states is not None
        logits = hidden_states @ parameters["gate"]
        if self.gate_bias is not None:
            logits += parameters["gate_bias"]
        B, H, T, _ = heads.shape
        gates = sigmoid(logits).reshape(B, T, H, logits.shape[-1] // H).transpose(0, 2, 1, 3)
        return self.project(heads, parameters, head_weights=gates)

    def plan_vjp(
        self,
        d_plan: CombinationPlan,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        plan: CombinationPlan,
        hidden_states: Array | None,
        training: bool,
    ) -> tuple[Array | None, Array | None, dict[str, Array]]:
        """Return the gradients of x, ``gate`` and ``gate_bias``, through the sigmoid."""
        assert hidden_states is not None
        d_logits = sigmoid_vjp(np.asarray(d_plan.head_weights), np.asarray(plan.head_weights))
        B, H, T, each = d_logits.shape
        d_logits = d_logits.transpose(0, 2, 1, 3).reshape(B, T, H * each)
        d_hidden, d_gate = linear_vjp(d_logits, hidden_states, parameters["gate"])
        gradients = {"gate": d_gate}
        if self.gate_bias is not None:
            gradients["gate_bias"] = d_logits.sum(axis=(0, 1))
        return None, d_hidden, gradients


class GatedHeads(_Gated):
    """Multiply each head by a gate that the word's own input opens or shuts.

    ``Y = concat_h(Z_h s_h) W_O + b`` with ``s = sigmoid(x W_g + c)``. ``gate`` W_g (M, H) starts
    uniform within 1/sqrt(M) of 0, ``weight`` (H*E, M) within 1/sqrt(H*E), ``bias`` (M,) at 0.

    Parameters
    ----------
    gate_bias : float, optional
        Where c (H,) starts; None, as in the paper, leaves c out.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``gate_bias`` is no finite number.

    Notes
    -----
    sigmoid(0) is 1/2: put under heads that are trained already, gates without a bias halve the
    layer. Start them open, ``GatedHeads(gate_bias=4)``: sigmoid(4) is 0.98.

    References
    ----------
    Qiu et al., Gated Attention for Large Language Models, arXiv:2505.06708 (the gate after the
    heads' outputs, G1, headwise).

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> {name: spec.shape for name, spec in GatedHeads(gate_bias=4).parameters(shape).items()}
    {'gate': (16, 4), 'gate_bias': (4,), 'weight': (32, 16), 'bias': (16,)}
    """

    name = "gated_heads"

    def gates(self, shape: HeadShape) -> int:
        """Return H."""
        return shape.num_heads


class GatedElements(_Gated):
    """Multiply each element of each head by a gate that the word's own input opens or shuts.

    ``Y = (concat_h(Z_h) * sigmoid(x W_g + c)) W_O + b``. ``gate`` W_g (M, H*E) starts uniform
    within 1/sqrt(M) of 0, ``weight`` (H*E, M) within 1/sqrt(H*E), ``bias`` (M,) at 0.

    Parameters
    ----------
    gate_bias : float, optional
        Where c (H*E,) starts; None, as in the paper, leaves c out.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``gate_bias`` is no finite number.

    Notes
    -----
    W_g is as large as W_O: twice the parameters and twice the work of ``concat_project``, where
    ``gated_heads`` adds 1/E. As there, sigmoid(0) is 1/2 and halves a layer that is trained
    already: start the gates open, ``GatedElements(gate_bias=4)``.

    References
    ----------
    Qiu et al., Gated Attention for Large Language Models, arXiv:2505.06708 (the gate after the
    heads' outputs, G1, elementwise).

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> GatedElements().parameters(shape)["gate"].shape
    (16, 32)
    """

    name = "gated_elements"

    def gates(self, shape: HeadShape) -> int:
        """Return H * E."""
        return shape.concat_width


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `GatedHeads` and `GatedElements`."""
    register(GatedHeads)
    register(GatedElements)
