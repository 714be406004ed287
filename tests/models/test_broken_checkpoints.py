"""Checkpoints that are broken or of another kind, each named with its rule."""

from __future__ import annotations

import shutil
import struct
import sys

import numpy as np
import pytest

from material.checkpoints import retensor, rewrite
from mhakit import models
from mhakit.errors import CheckpointError, MissingExtra
from mhakit.models.encoder import SAMPLE


def test_a_checkpoint_that_is_no_directory_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"must be a directory with .* which is no directory"):
        models.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(broken, name):
    (broken / name).unlink()
    with pytest.raises(CheckpointError, match=rf"a checkpoint must have .* without {name}"):
        models.load(broken)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b""])
def test_a_configuration_that_is_no_json_object_is_an_error(broken, content):
    (broken / "config.json").write_bytes(content)
    rule = "must hold a JSON object, got list" if content == b"[1]" else "must be readable JSON"
    with pytest.raises(CheckpointError, match=f"config.json {rule}"):
        models.load(broken)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"model_type": "gpt2"}, "model_type in .* must be 'bert', .* got 'gpt2'"),
        ({"model_type": None}, "model_type in .* got None"),
        ({"hidden_act": "relu"}, "hidden_act in .* must be 'gelu', got 'relu'"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type in .* must be 'absolute', got 'relative_key'",
        ),
        ({"is_decoder": True}, "is_decoder in .* must be False, got True"),
        ({"hidden_size": 0}, "hidden_size in .* must be an integer of at least 1, got 0"),
        ({"num_attention_heads": 3}, "multiple of num_attention_heads=3, got 8"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps in .* must be between 0 and 1, got 'tiny'"),
        ({"layer_norm_eps": float("nan")}, "must be between 0 and 1, got nan"),
    ],
)
def test_what_is_not_run_is_named(broken, entry, rule):
    rewrite(broken, "config.json", lambda entries: entries.update(entry))
    with pytest.raises(CheckpointError, match=rule):
        models.load(broken)


def test_a_missing_size_is_named(broken):
    rewrite(broken, "config.json", lambda entries: entries.pop("intermediate_size"))
    with pytest.raises(
        CheckpointError, match=r"intermediate_size in .* at least 1, got no such key"
    ):
        models.load(broken)


def test_a_missing_tensor_is_named(broken):
    retensor(broken, lambda tensors: tensors.pop("encoder.layer.0.output.dense.bias"))
    with pytest.raises(
        CheckpointError, match=r"must have a tensor encoder\.layer\.0\.output\.dense"
    ):
        models.load(broken)


def test_a_tensor_of_another_shape_is_named(broken):
    name = "encoder.layer.0.attention.self.key.weight"
    retensor(broken, lambda tensors: tensors.update({name: np.ones((8, 9), np.float32)}))
    with pytest.raises(CheckpointError, match=rf"{name} in .* shape \(8, 8\) .* got \(8, 9\)"):
        models.load(broken)


def test_a_tensor_of_whole_numbers_is_an_error(broken):
    name = "encoder.layer.0.attention.self.key.bias"
    retensor(broken, lambda tensors: tensors.update({name: np.ones(8, np.int32)}))
    with pytest.raises(CheckpointError, match=f"{name} in .* must be F64, F32, .* got I32"):
        models.load(broken)


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"": np.ones((6, 8), np.int8)}, r"must have a tensor .*\.scale beside the quantised"),
        (
            {"": np.ones((6, 8), np.int8), ".scale": np.ones(5, np.float32)},
            r"\.scale in .* must have shape \(6,\), a scale for each row .* got \(5,\)",
        ),
        (
            {"": np.ones(8, np.int8), ".scale": np.ones(8, np.float32)},
            r"must be a matrix of I8, got I8 of shape \(8,\)",
        ),
        (
            {
                "": np.ones((5, 8), np.int8),
                ".scale": np.ones(5, np.float32),
                ".packed": np.ones((1, 3), np.uint8),
                ".packed.scale": np.ones(1, np.float32),
            },
            "must have 4 columns, half of .* got 3",
        ),
    ],
)
def test_a_quantised_tensor_that_does_not_fit_is_named(broken, more, rule):
    name = "embeddings.word_embeddings.weight"
    retensor(broken, lambda tensors: tensors.update({name + k: v for k, v in more.items()}))
    with pytest.raises(CheckpointError, match=rule):
        models.load(broken)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"[]"]
)
def test_a_file_that_is_no_safetensors_is_an_error(broken, content):
    (broken / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
        models.load(broken)


def test_a_truncated_file_is_an_error(broken):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        CheckpointError, match=r"must be a whole safetensors file, .*fetch it again"
    ):
        models.load(broken)


def test_a_broken_tokenizer_is_an_error(broken):
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json must be a tokenizer, got: "):
        models.load(broken)


def test_a_tokenizer_of_another_checkpoint_is_an_error(broken):
    shutil.copy(SAMPLE / "tokenizer.json", broken)
    with pytest.raises(CheckpointError, match=r"must have ids below vocab_size=6 .* got 24675"):
        models.load(broken)


@pytest.mark.parametrize("module", ["safetensors", "tokenizers", "scipy.special"])
def test_without_the_extra_the_error_says_which(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r'not installed; pip install "mhakit\[models\]"'):
        models.load().run("hello")
