"""Read a checkpoint directory: its configuration and its tensors, checked by name and shape.

Three files make a checkpoint: ``config.json``, ``model.safetensors``, ``tokenizer.json``. Beside
float64, float32, float16 and bfloat16, a matrix may be stored in fewer bits, a scale a row:

- ``<name>`` int8 (R, C) with ``<name>.scale`` (R,): row r is ``int8[r] * scale[r]``;
- ``<name>.packed`` uint8 (P, C / 2) with ``<name>.packed.scale`` (P,): P more rows below those,
  4 bits a number, the even column in the low half of each byte, 8 added to make it positive.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import CheckpointError, MissingExtra

__all__ = ["FILES", "Config", "Tensors", "missing_extra", "read_config", "read_tensors"]

FILES = ("config.json", "model.safetensors", "tokenizer.json")

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
PREFIXES = ("", "bert.", "model.", "model.bert.")
OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of one BERT encoder, from its ``config.json``.

    Parameters
    ----------
    model_width, num_layers, num_heads, inner_width : int
        M, the number of layers, H, and the width inside the feed-forward network.
    positions, token_types, vocabulary : int
        Rows of the position, token type and word tables.
    epsilon : float
        Added to the variance in layer normalisation.
    """

    model_width: int
    num_layers: int
    num_heads: int
    inner_width: int
    positions: int
    token_types: int
    vocabulary: int
    epsilon: float

    @property
    def head_width(self) -> int:
        """M / H, the width of one head."""
        return self.model_width // self.num_heads


SIZES = {
    "hidden_size": "model_width",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "inner_width",
    "max_position_embeddings": "positions",
    "type_vocab_size": "token_types",
    "vocab_size": "vocabulary",
}

FIXED = {
    "hidden_act": ("gelu", "gelu"),
    "position_embedding_type": ("absolute", "absolute"),
    "is_decoder": (False, False),
}
"""What else a BERT could be, with the one value that is run and the value where none is given."""


def missing_extra(error: ImportError) -> MissingExtra:
    """Return the error that says which extra brings the module that was not found."""
    return MissingExtra(
        f"reading a checkpoint needs {error.name}, which is not installed; "
        'pip install "mhakit[models]" brings it'
    )


def read_config(directory: Path) -> Config:
    """Return the configuration of a checkpoint directory that has all three files."""
    if not directory.is_dir():
        raise CheckpointError(
            f"a checkpoint must be a directory with {', '.join(FILES)}, "
            f"got {str(directory)!r}, which is no directory"
        )
    for name in FILES:
        if not (directory / name).is_file():
            raise CheckpointError(
                f"a checkpoint must have {', '.join(FILES)}, got {str(directory)!r} without {name}"
            )
    path = directory / "config.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} must be readable JSON, got: {error}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(entries).__name__}")
    return _config(entries, path)


def _config(entries: dict[str, Any], path: Path) -> Config:
    architecture = entries.get("model_type")
    if architecture != "bert":
        raise CheckpointError(
            f"model_type in {path} must be 'bert', the one architecture that is run, "
            f"got {architecture!r}"
        )
    for key, (rule, default) in FIXED.items():
        if entries.get(key, default) != rule:
            raise CheckpointError(f"{key} in {path} must be {rule!r}, got {entries[key]!r}")
    sizes = {}
    for key, field in SIZES.items():
        size = entries.get(key)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            got = repr(size) if key in entries else "no such key"
            raise CheckpointError(f"{key} in {path} must be an integer of at least 1, got {got}")
        sizes[field] = size
    if sizes["model_width"] % sizes["num_heads"]:
        raise CheckpointError(
            f"hidden_size in {path} must be a multiple of num_attention_heads="
            f"{sizes['num_heads']}, got {sizes['model_width']}"
        )
    epsilon = entries.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise CheckpointError(f"layer_norm_eps in {path} must be between 0 and 1, got {epsilon!r}")
    return Config(**sizes, epsilon=epsilon)


class Tensors:
    """The tensors of one ``model.safetensors``, taken out by name as float32 of a known shape.

    Parameters
    ----------
    entries : dict
        For each name its ``dtype``, ``shape`` and bytes, ``data``.
    path : Path
        The file, for the errors.
    """

    def __init__(self, entries: dict[str, dict[str, Any]], path: Path) -> None:
        self._entries = entries
        self._path = path

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the tensor of that name and shape, whatever prefix or bits it is stored with."""
        stored = self._find(name)
        rows = self._dequantised(stored)
        if rows.shape != shape:
            raise CheckpointError(
                f"tensor {name} in {self._path} must have shape {shape} by config.json, "
                f"got {rows.shape}"
            )
        return rows

    def _find(self, name: str) -> str:
        for prefix in PREFIXES:
            if prefix + name in self._entries:
                return prefix + name
            for new, old in OLD_NAMES.items():
                if name.endswith(new) and prefix + name.removesuffix(new) + old in self._entries:
                    return prefix + name.removesuffix(new) + old
        raise CheckpointError(
            f"{self._path} must have a tensor {name} (or with 'bert.' before it), "
            f"got {len(self._entries)} others"
        )

    def _dequantised(self, name: str) -> NDArray[np.float32]:
        if self._entries[name]["dtype"] != "I8":
            return self._floats(name)
        rows = self._integers(name, np.int8) * self._scale(name)
        packed = f"{name}.packed"
        if packed not in self._entries:
            return rows
        pairs = self._integers(packed, np.uint8)
        if 2 * pairs.shape[1] != rows.shape[1]:
            raise CheckpointError(
                f"tensor {packed} in {self._path} must have {rows.shape[1] / 2:g} columns, "
                f"half of {name}'s, got {pairs.shape[1]}"
            )
        more = np.empty((len(pairs), rows.shape[1]), dtype=np.float32)
        more[:, 0::2] = pairs & 15
        more[:, 1::2] = pairs >> 4
        more -= 8
        more *= self._scale(packed)
        return np.concatenate([rows, more])

    def _scale(self, name: str) -> NDArray[np.float32]:
        """Return the scales of a quantised matrix as a column."""
        if f"{name}.scale" not in self._entries:
            raise CheckpointError(
                f"{self._path} must have a tensor {name}.scale beside the quantised {name}"
            )
        scale = self._floats(f"{name}.scale")
        rows = self._entries[name]["shape"][0]
        if scale.shape != (rows,):
            raise CheckpointError(
                f"tensor {name}.scale in {self._path} must have shape ({rows},), a scale for each "
                f"row of {name}, got {scale.shape}"
            )
        return scale[:, None]

    def _integers(self, name: str, dtype: type[np.integer[Any]]) -> NDArray[Any]:
        entry = self._entries[name]
        letter = "I8" if dtype is np.int8 else "U8"
        if entry["dtype"] != letter or len(entry["shape"]) != 2:
            raise CheckpointError(
                f"tensor {name} in {self._path} must be a matrix of {letter}, "
                f"got {entry['dtype']} of shape {tuple(entry['shape'])}"
            )
        return np.frombuffer(entry["data"], dtype).reshape(entry["shape"])

    def _floats(self, name: str) -> NDArray[np.float32]:
        entry = self._entries[name]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            halves = np.frombuffer(entry["data"], "<u2").astype("<u4")
            return (halves << 16).view(np.float32).reshape(entry["shape"])
        if entry["dtype"] not in FLOATS:
            raise CheckpointError(
                f"tensor {name} in {self._path} must be F64, F32, F16, BF16, or I8 with a scale, "
                f"got {entry['dtype']}"
            )
        numbers = np.frombuffer(entry["data"], FLOATS[entry["dtype"]])
        return numbers.astype(np.float32).reshape(entry["shape"])


def read_tensors(directory: Path) -> Tensors:
    """Return the tensors of a checkpoint directory."""
    try:
        import safetensors
        from safetensors import SafetensorError

        deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    except ImportError as error:
        raise missing_extra(error) from error
    path = directory / "model.safetensors"
    try:
        entries = dict(deserialize(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} must be a whole safetensors file, got: {error}; fetch it again"
        ) from error
    return Tensors(entries, path)
