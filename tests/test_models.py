"""The encoder against torch, what checkpoints may hold, and broken ones."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from mhakit import models
from mhakit.errors import CheckpointError, CombinationNotFound, MissingExtra, ParameterError
from mhakit.models.encoder import SAMPLE
from mhakit.models.sample import make

DATA = Path(__file__).parent / "data"
SENTENCES = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
CAT = SENTENCES[0]
FULL = make.full_checkpoint()
INSTALLED = {"sample": SAMPLE} | ({} if FULL is None else {"full_checkpoint": FULL})


def recorded(name):
    return np.load(DATA / f"{name}.npz")


def all_weights(encoder, sentence):
    return np.stack([layer.weights()[0] for layer in encoder.run(sentence).layers])


@pytest.fixture(scope="module")
def sample():
    return models.load()


@pytest.fixture(scope="module", params=INSTALLED)
def checkpoint(request):
    """Every checkpoint on this machine, with what torch computes on it."""
    return models.load(INSTALLED[request.param]), recorded(request.param)


@pytest.fixture
def broken(tmp_path):
    """A tiny checkpoint that works, to be broken."""
    return tiny(tmp_path / "tiny")


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


# ---- the encoder ------------------------------------------------------------------------------


def test_weights_are_torchs_on_the_same_checkpoint(checkpoint):
    encoder, torchs = checkpoint
    np.testing.assert_allclose(all_weights(encoder, CAT), torchs["weights"], rtol=0, atol=1e-5)


def test_sentence_vectors_are_torchs_on_the_same_checkpoint(checkpoint):
    encoder, torchs = checkpoint
    vectors = encoder.sentence_vector(SENTENCES)  # one batch of sentences of many lengths
    np.testing.assert_allclose(vectors, torchs["vectors"], rtol=0, atol=1e-5)


def test_the_sentence_alone_and_in_a_padded_batch_are_the_same(sample):
    alone = sample.run("hello there")
    batch = sample.run([SENTENCES[7], "hello there"])
    T = len(alone.sentences[0])
    np.testing.assert_allclose(
        batch.hidden_states[1, :T], alone.hidden_states[0], rtol=0, atol=1e-5
    )
    assert not batch.layers[0].weights()[1, :, :, T:].any()


def test_a_run_keeps_what_every_layer_did(sample):
    run = sample.run(CAT)
    assert len(run.layers) == 6
    for layer, following in zip(run.layers, run.layers[1:], strict=False):
        assert layer.heads.shape == (1, 12, 8, 32)
        assert layer.combined.shape == layer.output.shape == (1, 8, 384)
        assert following.hidden_states is layer.output
    np.testing.assert_allclose(
        run.layers[0].attention.combine(run.layers[0].heads), run.layers[0].combined
    )


def test_chosen_heads_and_targets_are_those_of_all(sample):
    layer = sample.run(CAT).layers[5]
    np.testing.assert_array_equal(
        layer.weights(heads=[11, 0], queries=[3]), layer.weights()[:, [11, 0]][:, :, [3]]
    )


def test_heads_can_be_combined_in_another_way_and_the_layer_keeps_its_own(sample):
    layer = sample.run(CAT).layers[0]
    combined, fresh = layer.combine_with("average")
    again, _ = layer.combine_with("average")
    np.testing.assert_array_equal(combined, again)
    assert fresh == ["combine.weight"]
    assert layer.attention.combination.name == "concat_project"
    own, kept = layer.combine_with("concat_project")
    np.testing.assert_array_equal(own, layer.combined)
    assert kept == []
    with pytest.raises(CombinationNotFound, match="got 'averge'; did you mean 'average'"):
        layer.combine_with("averge")


@pytest.mark.parametrize("prefix", ["bert.", "model.", "model.bert."])
def test_tensor_names_may_have_a_prefix(tmp_path, broken, prefix):
    same = tiny(tmp_path / "prefixed", prefix)
    np.testing.assert_array_equal(
        models.load(same).sentence_vector("the cat"), models.load(broken).sentence_vector("the cat")
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_tensors_of_every_float_dtype_are_read(tmp_path, broken, dtype):
    same = tiny(tmp_path / "other", dtype=dtype)
    np.testing.assert_array_equal(
        models.load(same).sentence_vector("the cat"), models.load(broken).sentence_vector("the cat")
    )


def test_the_older_names_of_layer_normalisation_are_read(tmp_path, broken):
    same = tiny(tmp_path / "older", old_names=True)
    np.testing.assert_array_equal(
        models.load(same).sentence_vector("the cat"), models.load(broken).sentence_vector("the cat")
    )


# ---- quantised ------------------------------------------------------------------------------


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


# ---- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \t", "\u200b"])
def test_a_sentence_without_a_word_is_an_error(sample, text):
    with pytest.raises(ParameterError, match="sentence must have at least one word, got "):
        sample.run(text)


def test_no_sentence_is_an_error(sample):
    with pytest.raises(ParameterError, match="sentences must be at least one sentence, got none"):
        sample.run([])


def test_a_sentence_that_is_no_text_is_an_error(sample):
    with pytest.raises(ParameterError, match="sentence must be a str, got int"):
        sample.run([3])
    with pytest.raises(ParameterError, match="sentences must be a str, a Sentence or several of"):
        sample.run(3)
    with pytest.raises(ParameterError, match=r"text that UTF-8 can write, got '\\udcff'"):
        sample.run("\udcff")


def test_a_sentence_longer_than_the_model_is_an_error_and_never_cut(broken):
    encoder = models.load(broken)
    assert len(encoder.tokenize("the cat the")) == 5
    with pytest.raises(
        ParameterError, match="at most 3 tokens, the model's 5 positions less 2 spe"
    ):
        encoder.run("the cat the cat")


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
