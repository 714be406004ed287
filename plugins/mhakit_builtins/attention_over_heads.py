"""Let each word attend over its own heads, and project what it finds.

``Y = (sum_h w_h Z_h) W + b`` with ``w = softmax_h(<x W_q, Z_h> / sqrt(E))``, for each word;
x (T, M), W_q (M, E), W (E, M), b (M,).
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
from mhakit_builtins.differentiable import linear_vjp, softmax, softmax_vjp
from mhakit_builtins.projecting import Projecting

__all__ = ["AttentionOverHeads"]


class AttentionOverHeads(Projecting):
    """Attend over the heads: a word's input asks, its heads' outputs are keys and values.

    ``Y = (sum_h w_h Z_h) W + b`` with ``w = softmax_h(<x W_q, Z_h> / sqrt(E))``. ``query``
    W_q (M, E) starts uniform within 1/sqrt(M) of 0, ``weight`` (E, M) within 1/sqrt(E), ``bias``
    (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Notes
    -----
    Before W, a word's result lies between its heads' outputs, in their convex hull, as that of
    ``average`` does; as ``average``, it is no drop-in for heads that were trained with
    ``concat_project``. It is not linear in Z, since Z decides its own weights.

    References
    ----------
    Iida et al., Attention over Heads: A Multi-Hop Attention for Neural Machine Translation, ACL
    Student Research Workshop 2019, aclanthology.org/P19-2030. Its second hop scores by a small
    network; the scaled dot product is ours.

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> {name: spec.shape for name, spec in AttentionOverHeads().parameters(shape).items()}
    {'query': (16, 8), 'weight': (8, 16), 'bias': (16,)}
    """

    name = "attention_over_heads"
    reference = "aclanthology.org/P19-2030"
    uses_hidden_states = True
    linear_in_heads = False

    def groups(self, num_heads: int) -> int:
        """Return 1: all heads become one."""
        return 1

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``query`` (M, E)."""
        return {"query": ParameterSpec((shape.model_width, shape.head_width), "uniform_fan_in")}

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return the query, its H products, five operations a softmax entry, the weighing."""
        query = (2 * shape.model_width + 1) * shape.head_width
        return query + 3 * shape.concat_width + 5 * shape.num_heads

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return one group of all heads, weighted by the word's own attention over them."""
        query = _query(hidden_states, parameters, heads)
        weights = softmax(np.einsum("bte,bhte->bht", query, heads), axis=1)
        return self.project(heads, parameters, head_weights=weights[..., None])

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
        """Return the gradients of Z, x and ``query``, through the softmax and the scores."""
        assert hidden_states is not None
        query = _query(hidden_states, parameters, heads)
        d_scores = softmax_vjp(
            np.asarray(d_plan.head_weights), np.asarray(plan.head_weights), axis=1
        )
        d_query = (d_scores * heads).sum(axis=1) / np.sqrt(heads.shape[3]).astype(heads.dtype)
        d_hidden, gradient = linear_vjp(d_query, hidden_states, parameters["query"])
        return d_scores * query[:, None], d_hidden, {"query": gradient}


def _query(x: Array | None, parameters: Mapping[str, Array], heads: Array) -> Array:
    """Return x W_q / sqrt(E), (B, T, E)."""
    assert x is not None
    return np.asarray(x @ parameters["query"] / np.sqrt(heads.shape[3]).astype(heads.dtype))


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `AttentionOverHeads`."""
    register(AttentionOverHeads)
