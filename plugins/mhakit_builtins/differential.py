"""Subtract from every even head a share of the odd one beside it, concatenate and project.

``Y = concat_i(Z_2i - l_i Z_2i+1) W_O + b`` with ``l = sigmoid(x W_l)``, i from 0 to H/2 - 1;
x (T, M), W_l (M, H/2), W_O (H/2 * E, M), b (M,).
"""

from __future__ import annotations

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

__all__ = ["Differential"]


class Differential(Projecting):
    """Let pairs of heads cancel what both see: the difference of two attentions.

    ``Y = concat_i(Z_2i - l_i Z_2i+1) W_O + b`` with ``l = sigmoid(x W_l)``, for each word and pair.
    ``lambda`` W_l (M, H/2) starts uniform within 1/sqrt(M) of 0, so that l starts about 1/2;
    ``weight`` (H/2 * E, M) uniform within 1/sqrt(H/2 * E), ``bias`` (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        Where it is used, if H is odd.

    Notes
    -----
    Only what both heads of a pair read from the same values cancels: a pair must share its
    key/value head, so give the layer H // 2 of those (or a number that H // 2 is a multiple of), as
    in ``MultiHeadAttention(M, H, num_kv_heads=H // 2, combine="differential")``. A combination
    cannot see how many there are, and nothing fails without: the layer merely learns worse. Pairs
    are neighbours, not the first half against the second.

    This is the second version, without the norm and the exponentials of the first.

    References
    ----------
    Ye et al., Differential Transformer, arXiv:2410.05258; l and the pairs as in its authors'
    Differential Transformer V2 (2026), github.com/microsoft/unilm, Diff-Transformer-V2.

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> {name: spec.shape for name, spec in Differential().parameters(shape).items()}
    {'lambda': (16, 2), 'weight': (16, 16), 'bias': (16,)}
    """

    name = "differential"
    reference = "arXiv:2410.05258"
    uses_hidden_states = True

    def validate(self, shape: HeadShape) -> None:
        """Raise ParameterError unless H is even."""
        if shape.num_heads % 2:
            raise ParameterError(
                "num_heads must be even for 'differential', which subtracts heads in pairs, "
                f"got H={shape.num_heads}; use {shape.num_heads + 1} heads or another combination"
            )

    def groups(self, num_heads: int) -> int:
        """Return H / 2, the pairs."""
        return num_heads // 2

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``lambda`` (M, H/2)."""
        pairs = shape.num_heads // 2
        return {"lambda": ParameterSpec((shape.model_width, pairs), "uniform_fan_in")}

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return x W_l, five operations for each factor -l, and H * E multiplications."""
        return (2 * shape.model_width + 5) * (shape.num_heads // 2) + shape.concat_width

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per pair, in which the even head weighs 1 and the odd one -l."""
        assert hidden_states is not None
        B, H, T, _ = heads.shape
        factors = np.ones((B, H, T, 1), heads.dtype)
        factors[:, 1::2, :, 0] = -sigmoid(hidden_states @ parameters["lambda"]).transpose(0, 2, 1)
        return self.project(heads, parameters, head_weights=factors)

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
        """Return the gradients of x and ``lambda``, through the sigmoid."""
        assert hidden_states is not None
        share = -np.asarray(plan.head_weights)[:, 1::2, :, 0]
        d_share = -np.asarray(d_plan.head_weights)[:, 1::2, :, 0]
        d_logits = sigmoid_vjp(d_share, share).transpose(0, 2, 1)
        d_hidden, d_lambda = linear_vjp(d_logits, hidden_states, parameters["lambda"])
        return None, d_hidden, {"lambda": d_lambda}


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Differential`."""
    register(Differential)
