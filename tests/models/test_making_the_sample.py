"""The sample is made of the full checkpoint, in rows of eight and four bits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from material.checkpoints import FULL, retensor, tiny
from mhakit import models
from mhakit.errors import CheckpointError
from mhakit.models.encoder import SAMPLE
from mhakit.models.sample import make


@pytest.mark.parametrize("source", [path for path in (FULL,) if path] or [None])
def test_making_the_sample_again_gives_the_same_bytes(tmp_path, source):
    if source is None:  # without the full checkpoint: the tiny one, twice
        source = tiny(tmp_path / "source")
        first, second = tmp_path / "first", tmp_path / "second"
        first.mkdir()
        make.make(source, first)
    else:
        first, second = SAMPLE, tmp_path / "second"
    second.mkdir()
    make.make(source, second)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_eight_bits_a_row_are_off_by_half_a_step_at_most():
    matrix = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    matrix[7] = 0
    integers, scale = make.eight_bits(matrix)
    step = np.abs(matrix).max(axis=1) / 127
    assert (np.abs(integers * scale[:, None] - matrix) <= 0.501 * step[:, None]).all()


def test_four_bits_a_row_come_back_through_a_checkpoint(tmp_path):
    directory = tiny(tmp_path / "packed")
    matrix = np.random.default_rng(0).integers(-7, 8, (6, 8)).astype(np.float32)
    matrix[:, 0] = 7  # the largest number is a whole step, so 4 bits hold the row exactly

    def pack(tensors):
        name = "embeddings.word_embeddings.weight"
        tensors[name], tensors[f"{name}.scale"] = make.eight_bits(matrix[:2])
        tensors[f"{name}.packed"], tensors[f"{name}.packed.scale"] = make.four_bits(matrix[2:])

    retensor(directory, pack)
    words = models.load(directory)._words
    np.testing.assert_array_equal(words[2:], matrix[2:])
    np.testing.assert_allclose(words[:2], matrix[:2], rtol=0, atol=0.03)


def test_the_script_asks_for_the_full_checkpoint_where_there_is_none(monkeypatch):
    monkeypatch.setattr(make, "full_checkpoint", lambda: None)
    monkeypatch.setattr(sys, "argv", ["make"])
    with pytest.raises(CheckpointError, match="the full checkpoint must be installed or given"):
        make.main()


def test_the_script_writes_where_it_is_told(tmp_path):
    source, output = tiny(tmp_path / "source"), tmp_path / "output"
    output.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "mhakit.models.sample.make"]
        + ["--checkpoint", source, "--output", output],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(" bytes\n")
    assert models.load(output).sentence_vector("the cat").shape == (8,)
