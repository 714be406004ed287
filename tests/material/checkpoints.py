"""Sentences, the checkpoints of this machine, and a tiny one that may be changed."""

from __future__ import annotations

import json

import numpy as np
import safetensors.numpy

from material.places import DATA
from mhakit.models.encoder import SAMPLE
from mhakit.models.sample import make

SENTENCES = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
CAT = SENTENCES[0]
FULL = make.full_checkpoint()


def recorded(name):
    return np.load(DATA / f"{name}.npz")


def all_weights(encoder, sentence):
    return np.stack([layer.weights()[0] for layer in encoder.run(sentence).layers])


def tiny(directory, prefix="", dtype=np.float32, old_names=False):
    """Write a checkpoint of 1 layer, 2 heads and M=8, as its tensors are stored elsewhere."""
    directory.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "the"]
    tokenizer = json.loads((SAMPLE / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"] = [t for t in tokenizer["added_tokens"] if t["content"] in words]
    cut = make.cut_tokenizer(tokenizer, words)
    (directory / "tokenizer.json").write_text(json.dumps(cut))
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 5,
        "type_vocab_size": 2,
        "vocab_size": 6,
    }
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    shapes = {f"embeddings.{n}_embeddings.weight": (r, 8)
              for n, r in (("word", 6), ("position", 5), ("token_type", 2))}  # fmt: skip
    shapes |= {f"embeddings.LayerNorm.{part}": (8,) for part in ("weight", "bias")}
    layer = "encoder.layer.0."
    for name, outputs, inputs in (
        ("attention.self.query", 8, 8),
        ("attention.self.key", 8, 8),
        ("attention.self.value", 8, 8),
        ("attention.output.dense", 8, 8),
        ("intermediate.dense", 16, 8),
        ("output.dense", 8, 16),
    ):
        shapes |= {f"{layer}{name}.weight": (outputs, inputs), f"{layer}{name}.bias": (outputs,)}
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes |= {f"{layer}{name}.weight": (8,), f"{layer}{name}.bias": (8,)}
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        stored = name
        if old_names:
            stored = stored.replace("LayerNorm.weight", "LayerNorm.gamma")
            stored = stored.replace("LayerNorm.bias", "LayerNorm.beta")
        # eighths: what every dtype from bfloat16 to float64 holds exactly
        tensors[prefix + stored] = (rng.integers(-8, 9, shape) / 8).astype(dtype)
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    return directory


def rewrite(directory, name, change):
    """Change one entry of config.json."""
    path = directory / name
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


def retensor(directory, change):
    """Change the tensors."""
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)
