"""What `mhakit heads` tells of one sentence: numbers first, a view or JSON of them after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit import analysis
from mhakit.models import LayerRun, Run, Sentence

__all__ = ["SAMPLE_NAME", "Combined", "LayerReport", "Report", "report"]

SAMPLE_NAME = "all-MiniLM-L6-v2"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Combined:
    """What became of a layer's heads; (T,) arrays."""

    combination: str
    norms: Numbers
    """length of each token's combined vector"""
    relative: Numbers
    """over the length of what the layer was given"""
    fresh: tuple[str, ...] = ()
    """parameters that were initialised, not trained"""
    trained: Combined | None = None
    """the layer's own, where another way was asked for"""
    cosines: Numbers | None = None
    """with the layer's own"""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The chosen heads of one layer, (H', …) arrays, and what was combined of all its heads."""

    layer: int
    heads: tuple[int, ...]
    weights: NDArray[np.float32]
    """(H', T, S)"""
    entropy: Numbers
    """(H', T)"""
    relative_entropy: Numbers
    """(H', T)"""
    strongest: NDArray[np.int64]
    """(H', T)"""
    combined: Combined

    def strongest_weight(self) -> NDArray[np.float32]:
        """Return the weight of each target's strongest source, (H', T)."""
        return np.take_along_axis(self.weights, self.strongest[..., None], axis=-1)[..., 0]


@dataclass(frozen=True, slots=True)
class Report:
    """One sentence through one model."""

    model: str | None
    """the checkpoint's directory; None is the embedded sample"""
    num_layers: int
    num_heads: int
    sentence: Sentence
    layers: tuple[LayerReport, ...]

    @property
    def words(self) -> NDArray[np.int64]:
        """The targets that are part of the text, not tokens such as ``[CLS]``."""
        return np.flatnonzero(~self.sentence.special)

    def weights(self) -> NDArray[np.float32]:
        """Return the weights of all chosen layers and heads, (L', H', T, S)."""
        return np.stack([layer.weights for layer in self.layers])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists, numbers and strings, for JSON."""
        return {
            "model": self.model or SAMPLE_NAME,
            "sentence": self.sentence.text,
            "tokens": list(self.sentence.tokens),
            "special": self.sentence.special.tolist(),
            "layers": [
                {
                    "layer": layer.layer,
                    "heads": [
                        self._head_dict(layer, place, head)
                        for place, head in enumerate(layer.heads)
                    ],
                    "combined": self._combined_dict(layer.combined),
                }
                for layer in self.layers
            ],
        }

    def _head_dict(self, layer: LayerReport, place: int, head: int) -> dict[str, Any]:
        tokens = self.sentence.tokens
        highest = layer.strongest_weight()[place]
        return {
            "head": head,
            "entropy": _mean(layer.entropy[place], self.words),
            "relative_entropy": _mean(layer.relative_entropy[place], self.words),
            "targets": [
                {
                    "target": t,
                    "token": tokens[t],
                    "source": int(s),
                    "source_token": tokens[s],
                    "weight": _rounded(highest[t]),
                    "entropy": _rounded(layer.entropy[place, t]),
                }
                for t, s in enumerate(layer.strongest[place])
            ],
            "weights": [[_rounded(weight) for weight in row] for row in layer.weights[place]],
        }

    def _combined_dict(self, combined: Combined) -> dict[str, Any]:
        told: dict[str, Any] = {
            "combination": combined.combination,
            "mean_norm": _mean(combined.norms, self.words),
            "mean_relative_norm": _mean(combined.relative, self.words),
            "norms": [_rounded(norm) for norm in combined.norms],
        }
        if combined.trained is not None and combined.cosines is not None:
            told["fresh_parameters"] = list(combined.fresh)
            told["seed"] = 0
            told["mean_cosine_with_trained"] = _mean(combined.cosines, self.words)
            told["cosines_with_trained"] = [_rounded(cosine) for cosine in combined.cosines]
            told["trained"] = self._combined_dict(combined.trained)
        return told


def report(
    run: Run,
    layers: Sequence[int],
    heads: Sequence[int],
    combination: str | None,
    model: str | None,
) -> Report:
    """Return what the chosen heads of the chosen layers look at, in a run of one sentence."""
    return Report(
        model,
        len(run.layers),
        run.layers[0].attention.num_heads,
        run.sentences[0],
        tuple(_layer(run.layers[at], at, tuple(heads), combination) for at in layers),
    )


def _layer(
    layer: LayerRun, at: int, heads: tuple[int, ...], combination: str | None
) -> LayerReport:
    weights = layer.weights(heads=heads)[0]
    return LayerReport(
        at,
        heads,
        weights,
        analysis.entropy(weights),
        analysis.relative_entropy(weights, visible=weights.shape[-1]),
        analysis.strongest_source(weights),
        _combined(layer, combination),
    )


def _combined(layer: LayerRun, combination: str | None) -> Combined:
    length = np.linalg.norm(layer.hidden_states[0].astype(np.float64), axis=-1)
    own = layer.combined[0].astype(np.float64)
    norms = np.linalg.norm(own, axis=-1)
    trained = Combined(layer.attention.combination.name, norms, _over(norms, length))
    if combination is None:
        return trained
    combined, fresh = layer.combine_with(combination, rng=0)
    other = combined[0].astype(np.float64)
    lengths = np.linalg.norm(other, axis=-1)
    cosines = _over((own * other).sum(axis=-1), norms * lengths)
    return Combined(combination, lengths, _over(lengths, length), tuple(fresh), trained, cosines)


def _over(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _mean(numbers: Numbers, words: NDArray[np.int64]) -> float:
    return _rounded(numbers[words].mean())


def _rounded(number: Any) -> float:
    return round(float(number), 6)
