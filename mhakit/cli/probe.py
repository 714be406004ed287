"""What `mhakit compare` tells: combinations compared on the heads of some layers of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mhakit import analysis
from mhakit.analysis import ComparedCombination, Comparison
from mhakit.cli.report import SAMPLE_NAME
from mhakit.models import Encoder

__all__ = ["Probe", "probe"]

BATCH = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """Combinations compared on each of some layers."""

    model: str | None
    """the checkpoint's directory; None is the embedded sample"""
    sentences: int
    layers: tuple[int, ...]
    comparisons: tuple[Comparison, ...]

    def means(self) -> list[ComparedCombination]:
        """Return a row for each combination, best first: the layers' mean, their largest steps."""
        rows = []
        for of_layers in zip(*self.comparisons, strict=True):
            missing = next((row for row in of_layers if row.recovered is None), None)
            if missing is not None:
                rows.append(missing)
                continue
            fields = ("recovered", "recovered_fitted", "microseconds")
            mean: dict[str, Any] = {
                field: float(np.mean([getattr(row, field) for row in of_layers]))
                for field in fields
            }
            steps = max(row.steps for row in of_layers)
            rows.append(replace(of_layers[0], steps=steps, **mean))
        return sorted(rows, key=lambda row: -np.inf if row.recovered is None else -row.recovered)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as lists, numbers and strings, for JSON."""
        return {
            "model": self.model or SAMPLE_NAME,
            "sentences": self.sentences,
            "layers": [
                {"layer": layer, **comparison.to_dict()}
                for layer, comparison in zip(self.layers, self.comparisons, strict=True)
            ],
        }


def probe(
    encoder: Encoder,
    model: str | None,
    sentences: Sequence[str],
    layers: tuple[int, ...],
    names: Sequence[str],
    steps: int,
    seed: int,
    over: Callable[[Iterable[str]], Iterable[str]],
) -> Probe:
    """Compare the named combinations on these layers; ``over`` shows how far along the names."""
    inputs, lengths = _inputs(encoder, sentences, layers)
    rows: dict[int, list[Comparison]] = {layer: [] for layer in layers}
    for name in over(names):
        for layer in layers:
            rows[layer].append(
                analysis.compare_combinations(
                    encoder.layers[layer].attention,
                    inputs[layer],
                    [name],
                    key_lengths=lengths,
                    steps=steps,
                    seed=seed,
                )
            )
    joined = tuple(
        replace(of_layer[0], rows=tuple(row for each in of_layer for row in each))
        for of_layer in rows.values()
    )
    return Probe(model, len(sentences), layers, joined)


def _inputs(
    encoder: Encoder, sentences: Sequence[str], layers: tuple[int, ...]
) -> tuple[dict[int, Any], Any]:
    """Return what each layer is given, (B, T, M), and the sentences' lengths, batch by batch."""
    cut = [encoder.tokenize(sentence) for sentence in sentences]
    lengths = np.array([len(sentence) for sentence in cut])
    shape = (len(cut), int(lengths.max(initial=0)), encoder.config.model_width)
    inputs = {layer: np.zeros(shape, np.float32) for layer in layers}
    for first in range(0, len(cut), BATCH):
        run = encoder.run(cut[first : first + BATCH])
        for layer, array in inputs.items():
            states = run.layers[layer].hidden_states
            array[first : first + BATCH, : states.shape[1]] = states
    return inputs, lengths
