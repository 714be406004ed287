"""Average the heads by learned weights and project.

``Y = (sum_h k_h Z_h) W + b`` with ``k = softmax(t)``, t (H,), W (E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.plugin_api import (
    Array,
    CombinationPlan,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)
from mhakit_builtins.differentiable import softmax, softmax_vjp
from mhakit_builtins.projecting import Projecting

__all__ = ["WeightedSum"]


class WeightedSum(Projecting):
    """Average the heads by weights that are learned and sum to 1, then project.

    ``Y = (sum_h k_h Z_h) W + b`` with ``k = softmax(t)``. ``logits`` t (H,) starts at 0, so that
    it begins as ``average``; ``weight`` (E, M) uniform within 1/sqrt(E) of 0, ``bias`` (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Notes
    -----
    In the paper every head has a projection and a feed-forward network of its own, and is weighed
    before and after the latter; here all share one W, so that it stays a combination. As
    ``average``, it is no drop-in for heads that were trained with ``concat_project``, and W has
    rank E at most.

    References
    ----------
    Ahmed, Keskar and Socher, Weighted Transformer Network for Machine Translation,
    arXiv:1711.02132 (the weights kappa, which are positive and sum to 1).

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> {name: spec.shape for name, spec in WeightedSum().parameters(shape).items()}
    {'logits': (4,), 'weight': (8, 16), 'bias': (16,)}
    """

    name = "weighted_sum"
    reference = "arXiv:1711.02132"

    def groups(self, num_heads: int) -> int:
        """Return 1: all heads become one."""
        return 1

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``logits`` (H,), zeros."""
        return {"logits": ParameterSpec((shape.num_heads,), "zeros")}

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return the H * E multiplications; the softmax is made once, for no word."""
        return shape.concat_width

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return one group of all heads, weighted by the softmax of ``logits``."""
        share = softmax(parameters["logits"], axis=0)
        return self.project(heads, parameters, head_weights=share[:, None, None])

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
        """Return the gradient of ``logits``, through the softmax."""
        share = softmax(parameters["logits"], axis=0)
        d_share = np.reshape(np.asarray(d_plan.head_weights), share.shape)
        return None, None, {"logits": softmax_vjp(d_share, share, axis=0)}

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return k_h W for each head, one below the other."""
        share = softmax(parameters["logits"], axis=0)
        return np.kron(share[:, None], parameters["weight"]), parameters.get("bias")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `WeightedSum`."""
    register(WeightedSum)
