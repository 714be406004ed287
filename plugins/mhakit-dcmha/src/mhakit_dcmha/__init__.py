"""Compose scores and weights across heads by a matrix that target and source words ask for.

``A'[j] = sum_i W[i, j] A[i]``, ``W = I + W_static + W_query(t) + W_key(s)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mhakit import ParameterError
from mhakit.plugin_api import (
    Array,
    HeadMixing,
    MixingShape,
    ParameterSpec,
    RegisterMixing,
    hookimpl,
)
from scipy.special import erf

__all__ = ["DCMHA"]

SIDES = ("target", "source")
EPSILON = 1e-6
"""Added to the mean square before its root, as the authors' code does."""


class DCMHA(HeadMixing):
    """Dynamically composable multi-head attention: static, query-wise and key-wise composition.

    For target t and source s, with A the numbers of the H heads there (scores before softmax,
    weights after it), ``A'[j] = sum_i W[i, j] A[i]`` with ``W = I + W_static + W_query(t) +
    W_key(s)``. Each of the two dynamic parts is of low rank plus a gated diagonal,
    ``sum_r a_r b_r^T + diag(tanh(x W_gate))`` with ``[a, b] = gelu(x W_hidden) W_low_rank`` and a_r
    divided by its root mean square over heads; x is the layer's input at t for W_query, at s for
    W_key. Scores and weights have parameters of their own, axis 0; axis 1 of the dynamic ones is
    target, source. With K = 2 R H:

    ``static`` (2, H, H), ``hidden`` (2, 2, M, K), ``low_rank`` (2, 2, K, 2 R, H; a before b),
    ``gate`` (2, 2, M, H).

    Parameters
    ----------
    rank : int
        R, 2 in the paper's models.

    Notes
    -----
    ``static``, ``gate`` and b of ``low_rank`` start at 0, so that W = I; the others uniform within
    1/sqrt of what they sum over. This start is ours. All heads are composed together: the authors'
    groups of heads are not here.

    References
    ----------
    Xiao et al., Improving Transformers with Dynamically Composable Multi-Head Attention,
    arXiv:2405.08553, section 2 (the Compose function); gelu, norm and sizes as in the authors'
    code, github.com/Caiyun-AI/DCFormer.

    Examples
    --------
    >>> shape = MixingShape(score_heads=4, softmax_heads=4, value_heads=4, model_width=16)
    >>> {name: spec.shape for name, spec in DCMHA().parameters(shape).items()}["low_rank"]
    (2, 2, 16, 4, 4)
    """

    name = "dcmha"
    reference = "arXiv:2405.08553"
    uses_hidden_states = True

    def __init__(self, rank: int = 2) -> None:
        if not isinstance(rank, int) or rank < 1:
            raise ParameterError(f"rank must be an int of at least 1, got {rank!r}")
        self.rank = rank

    def validate(self, shape: MixingShape) -> None:
        """Refuse unequal counts of heads, and a width that is not known."""
        counts = (shape.score_heads, shape.softmax_heads, shape.value_heads)
        if len(set(counts)) > 1:
            raise ParameterError(
                "dcmha must have as many heads of scores, softmax and values, "
                f"got {counts[0]}, {counts[1]} and {counts[2]}; pass value_heads={counts[0]}"
            )
        if shape.model_width is None:
            raise ParameterError(
                "dcmha must know M, the width of the hidden states, got None; pass hidden_states, "
                "or model_width"
            )

    def parameters(self, shape: MixingShape) -> dict[str, ParameterSpec]:
        """Return ``static``, ``hidden``, ``low_rank`` and ``gate``."""
        H, M, R = shape.score_heads, shape.model_width or 0, self.rank
        K = 2 * R * H
        return {
            "static": ParameterSpec((2, H, H), "zeros"),
            "hidden": ParameterSpec((2, 2, M, K), _uniform),
            "low_rank": ParameterSpec((2, 2, K, 2 * R, H), _first_half_uniform),
            "gate": ParameterSpec((2, 2, M, H), "zeros"),
        }

    def mix_scores(
        self,
        scores: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return the scores composed across heads."""
        return self._compose(scores, 0, parameters, hidden_states, source_states)

    def mix_weights(
        self,
        weights: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return the weights composed across heads."""
        return self._compose(weights, 1, parameters, hidden_states, source_states)

    def _compose(
        self,
        array: Array,
        which: int,
        parameters: Mapping[str, Array],
        hidden_states: Array | None,
        source_states: Array | None,
    ) -> Array:
        """Return ``W^T A`` at every target and source: (B, H, T, S) again.

        One product for each target, (H, H) by (H, S), and one for each source, (H, H) by (H, T): a
        word's matrix meets the scores of that word only, whatever it holds.
        """
        assert hidden_states is not None
        assert source_states is not None
        by_target = self._matrices(hidden_states, which, 0, parameters)
        by_source = self._matrices(source_states, which, 1, parameters)
        fixed = np.eye(array.shape[1], dtype=array.dtype) + parameters["static"][which]
        rows = np.matmul((by_target + fixed).swapaxes(-1, -2), array.swapaxes(1, 2))
        columns = np.matmul(
            by_source.swapaxes(-1, -2), np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        )
        composed = rows.swapaxes(1, 2)
        composed += columns.transpose(0, 2, 3, 1)
        return composed

    def _matrices(
        self, states: Array, which: int, side: int, parameters: Mapping[str, Array]
    ) -> Array:
        """Return each word's dynamic matrix, (B, words, H, H), first index the head that gives."""
        R = self.rank
        hidden, low_rank, gate = (
            parameters[name][which, side] for name in ("hidden", "low_rank", "gate")
        )
        K, _, H = low_rank.shape
        inner = _gelu(states @ hidden)
        factors = (inner @ low_rank.reshape(K, 2 * R * H)).reshape(*states.shape[:2], 2 * R, H)
        a, b = factors[:, :, :R], factors[:, :, R:]
        a = a / np.sqrt(np.mean(a * a, axis=-1, keepdims=True) + a.dtype.type(EPSILON))
        matrices = np.matmul(a.swapaxes(-1, -2), b)
        diagonal = np.arange(H)
        matrices[..., diagonal, diagonal] += np.tanh(states @ gate)
        return np.asarray(matrices)


def _gelu(x: Array) -> Array:
    half = x.dtype.type(0.5)
    return np.asarray(half * x * (1 + erf(x * np.sqrt(half))))


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    bound = 1 / np.sqrt(max(shape[2], 1))
    return rng.uniform(-bound, bound, shape)


def _first_half_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = _uniform(rng, shape)
    values[..., shape[3] // 2 :, :] = 0
    return values


@hookimpl
def mhakit_register_mixings(register: RegisterMixing) -> None:
    """Register `DCMHA`."""
    register(DCMHA)
