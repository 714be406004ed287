"""The encoder: torch's results on the same checkpoint, what a run keeps, what it reads."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from material.checkpoints import CAT, FULL, SENTENCES, all_weights, recorded, tiny
from mhakit import models
from mhakit.errors import CombinationNotFound
from mhakit.models.encoder import SAMPLE

INSTALLED = {"sample": SAMPLE} | ({} if FULL is None else {"full_checkpoint": FULL})


@pytest.fixture(scope="module", params=INSTALLED)
def checkpoint(request):
    """Every checkpoint on this machine, with what torch computes on it."""
    return models.load(INSTALLED[request.param]), recorded(request.param)


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
