"""What one run of an encoder leaves behind, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit import api
from mhakit.layer import MultiHeadAttention
from mhakit.models.sentence import Sentence

__all__ = ["LayerRun", "Run"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LayerRun:
    """One layer of one run. Rows at and past a sentence's length are padding and mean nothing.

    Parameters
    ----------
    attention : MultiHeadAttention
        The layer's attention, with its trained parameters.
    lengths : ndarray of int64, shape (B,)
        Tokens of each sentence.
    hidden_states : ndarray of float32, shape (B, T, M)
        What the layer was given.
    heads : ndarray of float32, shape (B, H, T, E)
        Each head's output for each token: Z0, Z1, …
    combined : ndarray of float32, shape (B, T, M)
        The heads combined, before the residual is added.
    output : ndarray of float32, shape (B, T, M)
        What the layer gave, after the feed-forward network.
    """

    attention: MultiHeadAttention
    lengths: NDArray[np.int64]
    hidden_states: Floats
    heads: Floats
    combined: Floats
    output: Floats

    def weights(
        self, heads: Sequence[int] | None = None, queries: Sequence[int] | None = None
    ) -> Floats:
        """Return how much each token looks at each token, computed when asked for.

        Parameters
        ----------
        heads, queries : sequence of int, optional
            Only these heads and targets; None is all.

        Returns
        -------
        ndarray of float32, shape (B, H, T, S)
            Weights that sum to 1 over S; sources past a sentence's length have 0.

        Raises
        ------
        ParameterError
            Where a head or target is out of range.

        References
        ----------
        Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.2.1.

        Examples
        --------
        >>> from mhakit import models
        >>> first = models.load().run("the cat sat on the mat").layers[0]
        >>> weights = first.weights(heads=[2])
        >>> weights.shape
        (1, 1, 8, 8)
        >>> bool(weights[0, 0, 3, 2] > 0.99)  # "sat" looks at the word before it, "cat"
        True
        """
        query, key, _ = self.attention.project(self.hidden_states)
        weights: Floats = api.attention_weights(
            query, key, key_lengths=self.lengths, heads=heads, queries=queries
        )
        return weights

    def combine_with(self, combination: str, rng: int = 0) -> tuple[Floats, list[str]]:
        """Combine the same heads in another way.

        Parameters
        ----------
        combination : str
            The name of an installed combination.
        rng : int
            The seed for parameters that the trained layer does not have.

        Returns
        -------
        combined : ndarray of float32, shape (B, T, M)
            The heads combined so.
        fresh : list of str
            The layer's names of the parameters that were freshly initialised.

        Raises
        ------
        CombinationNotFound
            Where no installed plugin offers that name.

        References
        ----------
        Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.2.2, is what
        the checkpoint was trained with.

        Examples
        --------
        >>> from mhakit import models
        >>> first = models.load().run("the cat sat on the mat").layers[0]
        >>> combined, fresh = first.combine_with("average")
        >>> combined.shape, fresh
        ((1, 8, 384), ['combine.weight'])
        """
        other = copy.deepcopy(self.attention)
        fresh = list(other.combine_with(combination, rng=rng))
        combined: Floats = other.combine(self.heads, hidden_states=self.hidden_states)
        return combined, fresh


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One pass of a batch of sentences through an encoder.

    Parameters
    ----------
    sentences : tuple of Sentence
        The B sentences; T is the length of the longest.
    layers : tuple of LayerRun
        The layers, first to last.
    """

    sentences: tuple[Sentence, ...]
    layers: tuple[LayerRun, ...]

    @property
    def hidden_states(self) -> Floats:
        """The last layer's output, (B, T, M)."""
        return self.layers[-1].output

    def sentence_vectors(self) -> Floats:
        """Return the mean of each sentence's last hidden states, of length 1: (B, M)."""
        states = self.hidden_states
        rows: list[Any] = [
            states[b, : len(sentence)].mean(axis=0) for b, sentence in enumerate(self.sentences)
        ]
        means = np.stack(rows)
        unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit
