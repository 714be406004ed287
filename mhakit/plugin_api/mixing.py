"""Mixing scores and weights between heads: the interface of a strategy.

A mixing acts inside attention, before and after softmax, where a combination acts after it. The
host does everything else, in this order: scale, `HeadMixing.mix_scores`, bias and mask, softmax,
`HeadMixing.mix_weights`, times value. There are three counts of heads: those that score (query and
key), those that softmax runs over (mask and bias go by them), and those of the values.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mhakit.plugin_api.plan import Array, ParameterSpec

__all__ = ["HeadMixing", "MixingShape"]


@dataclass(frozen=True, slots=True)
class MixingShape:
    """The sizes a mixing is built for.

    Parameters
    ----------
    score_heads : int
        Heads of the query: h_k of the paper of talking heads.
    softmax_heads : int
        Heads between the two mixes: h of that paper.
    value_heads : int
        Heads of weights after the second: h_v of that paper.
    model_width : int or None
        M, the width of the hidden states; None where none are given.

    Examples
    --------
    >>> MixingShape(score_heads=6, softmax_heads=4, value_heads=8).softmax_heads
    4
    """

    score_heads: int
    softmax_heads: int
    value_heads: int
    model_width: int | None = None


class HeadMixing(ABC):
    """A way of mixing scores or weights between heads. Define `mix_scores`, `mix_weights` or both.

    What comes of target t and source s may depend on the scores (or weights) of t and s, on the
    hidden state of t and on that of s, and on nothing else: that is how a source that is hidden
    from a target stays hidden. The host hands over a score of 0 for a source that no head may see,
    and sets its weight to 0 after `mix_weights`. No state is kept on ``self`` between calls.

    Attributes
    ----------
    name : str
        What users pass as ``mixing``.
    reference : str
        The paper, as ``"arXiv:2003.02436"``, or what else says where it comes from.
    uses_hidden_states : bool
        Whether it reads the layer's input at targets and sources.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    uses_hidden_states: ClassVar[bool] = False

    def validate(self, shape: MixingShape) -> None:  # noqa: B027  # any counts do, by default
        """Raise ParameterError, with the way out, where these counts cannot be mixed so."""

    def parameters(self, shape: MixingShape) -> dict[str, ParameterSpec]:
        """Return the learned parameters by name."""
        return {}

    def mix_scores(
        self,
        scores: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return the scores that softmax takes, (B, softmax heads, T, S); by default as they came.

        Parameters
        ----------
        scores : ndarray, shape (B, score heads, T, S)
            Scaled products of query and key, 0 where no head may look. May be overwritten.
        parameters : mapping of str to ndarray
            What `parameters` asked for, by name.
        hidden_states : ndarray, shape (B, T, M), or None
            The layer's input at the targets, given where `uses_hidden_states` says it is needed.
        source_states : ndarray, shape (B, S, M), or None
            The layer's input at the sources, likewise.
        """
        return scores

    def mix_weights(
        self,
        weights: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return the weights of the values, (B, value heads, T, S); by default as they came.

        Parameters
        ----------
        weights : ndarray, shape (B, softmax heads, T, S)
            Of softmax, 0 where a head may not look. May be overwritten.
        parameters, hidden_states, source_states
            As in `mix_scores`.
        """
        return weights
