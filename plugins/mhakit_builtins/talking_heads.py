"""Talking heads: a learned mix of scores across heads before softmax, and of weights after it.

``L_j = sum_i P_l[i, j] J_i``, ``W = softmax(L)``, ``U_k = sum_j P_w[j, k] W_j``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import (
    Array,
    HeadMixing,
    MixingShape,
    ParameterSpec,
    RegisterMixing,
    hookimpl,
)

__all__ = ["TalkingHeads"]


class TalkingHeads(HeadMixing):
    """Mix scores and weights between heads by two learned matrices.

    With J the scaled scores (B, h_k, T, S): ``L_j = sum_i P_l[i, j] J_i`` are the scores that the h
    heads of softmax take, and ``U_k = sum_j P_w[j, k] W_j`` of their weights W are those of the h_v
    heads of values. ``score_projection`` is P_l (h_k, h) and ``weight_projection`` P_w (h, h_v);
    both start as the identity, so that with equal counts a layer starts as usual attention.

    Parameters
    ----------
    scores, weights : bool
        Whether each mix is there. The paper's ablation has each alone; without one the counts of
        heads on both sides of it must be equal.

    Notes
    -----
    The rows of U need not sum to 1, and its entries may be negative. The paper starts its matrices
    at random; the identity is ours.

    References
    ----------
    Shazeer et al., Talking-Heads Attention, arXiv:2003.02436, section 3 (the three counts of
    heads), section 5.2 (one of the two alone).

    Examples
    --------
    >>> shape = MixingShape(score_heads=6, softmax_heads=4, value_heads=8)
    >>> {name: spec.shape for name, spec in TalkingHeads().parameters(shape).items()}
    {'score_projection': (6, 4), 'weight_projection': (4, 8)}
    """

    name = "talking_heads"
    reference = "arXiv:2003.02436"

    def __init__(self, scores: bool = True, weights: bool = True) -> None:
        self.scores = scores
        self.weights = weights

    def validate(self, shape: MixingShape) -> None:
        """Refuse unequal counts of heads on both sides of a mix that is not there."""
        counts = {
            "scores": (shape.score_heads, shape.softmax_heads),
            "weights": (shape.softmax_heads, shape.value_heads),
        }
        for name, (before, after) in counts.items():
            if not getattr(self, name) and before != after:
                raise ParameterError(
                    f"heads must be as many before as after {name} where {name}=False, "
                    f"got {before} and {after}; leave {name}=True"
                )

    def parameters(self, shape: MixingShape) -> dict[str, ParameterSpec]:
        """Return ``score_projection`` (h_k, h) and ``weight_projection`` (h, h_v)."""
        specs = {}
        if self.scores:
            counts = (shape.score_heads, shape.softmax_heads)
            specs["score_projection"] = ParameterSpec(counts, "identity")
        if self.weights:
            counts = (shape.softmax_heads, shape.value_heads)
            specs["weight_projection"] = ParameterSpec(counts, "identity")
        return specs

    def mix_scores(
        self,
        scores: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return ``L_j = sum_i P_l[i, j] J_i``."""
        return _mix(scores, parameters["score_projection"]) if self.scores else scores

    def mix_weights(
        self,
        weights: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return ``U_k = sum_j P_w[j, k] W_j``."""
        return _mix(weights, parameters["weight_projection"]) if self.weights else weights


def _mix(array: Array, projection: Array) -> Array:
    """Return one matrix product for each b: (heads, T * S) from the left by the projection's T."""
    B, heads, T, S = array.shape
    mixed = np.matmul(projection.T, array.reshape(B, heads, T * S))
    return np.asarray(mixed.reshape(B, projection.shape[1], T, S))


@hookimpl
def mhakit_register_mixings(register: RegisterMixing) -> None:
    """Register `TalkingHeads`."""
    register(TalkingHeads)
