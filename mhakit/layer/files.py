"""A layer's arrays in one file, ``.npz`` or ``.safetensors``: written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import CheckpointError, MissingExtra, ParameterError

__all__ = ["read_file", "write_file"]

Array = NDArray[Any]

RECORD = "mhakit"
"""The entry beside the arrays that says, in JSON, what they are of."""

LETTERS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_file(path: Path, arrays: Mapping[str, Array], record: Mapping[str, str]) -> None:
    """Write arrays, all of the dtype that the record names, or leave the file as it was."""
    write = _write_npz if _suffix(path) == ".npz" else _write_safetensors
    content = write(arrays, json.dumps(dict(record)))
    # beside it, so that replacing is one step of the file system
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_file(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays and the record of a file that `write_file` wrote."""
    read = _read_npz if _suffix(path) == ".npz" else _read_safetensors
    try:
        arrays, text = read(path)
        record = json.loads(text)
        dtype = record["dtype"]
    except OSError as error:
        raise CheckpointError(f"{path} must be a file that can be read, got: {error}") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} must be a whole file that a layer's save wrote, got: "
            f"{type(error).__name__}: {error}; save it again"
        ) from error
    if dtype == "bfloat16":
        arrays = {name: _as_bfloat16(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.name != dtype:
            raise CheckpointError(
                f"{name} in {path} must be {dtype} as the file says, got {array.dtype.name}"
            )
    return arrays, record


def _suffix(path: Path) -> str:
    if path.suffix not in (".npz", ".safetensors"):
        raise ParameterError(f"path must end in .npz or .safetensors, got {str(path)!r}")
    return path.suffix


def _write_npz(arrays: Mapping[str, Array], record: str) -> bytes:
    buffer = io.BytesIO()
    # NumPy writes no name of a dtype that is not its own: 16 bits are 16 bits
    bits = {n: a.view(np.uint16) if a.dtype.name == "bfloat16" else a for n, a in arrays.items()}
    np.savez(buffer, allow_pickle=False, **{RECORD: np.array(record)}, **bits)
    return buffer.getvalue()


def _read_npz(path: Path) -> tuple[dict[str, Array], str]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return arrays, str(arrays.pop(RECORD))


def _write_safetensors(arrays: Mapping[str, Array], record: str) -> bytes:
    _safetensors()
    from safetensors.numpy import save

    return save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, {RECORD: record})


def _read_safetensors(path: Path) -> tuple[dict[str, Array], str]:
    safetensors = _safetensors()
    content = path.read_bytes()
    try:
        entries = dict(safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = {}
    for name, entry in entries.items():
        bits = np.uint16 if entry["dtype"] == "BF16" else LETTERS[entry["dtype"]]
        arrays[name] = np.frombuffer(entry["data"], bits).reshape(entry["shape"])
    return arrays, header["__metadata__"][RECORD]


def _as_bfloat16(array: Array) -> Array:
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtra(
            "reading bfloat16 needs ml_dtypes, which is not installed; "
            'pip install "mhakit[bf16]" brings it'
        ) from error
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array


def _safetensors() -> Any:
    try:
        import safetensors
    except ImportError as error:
        raise MissingExtra(
            "a file that ends in .safetensors needs safetensors, which is not installed; "
            'pip install "mhakit[models]" brings it, or end the path in .npz'
        ) from error
    return safetensors
