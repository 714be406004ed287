"""The embedded sample: its size and vocabulary, and how near it is to the full checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from material.checkpoints import CAT, FULL, SENTENCES, all_weights
from material.places import DATA
from mhakit import models
from mhakit.models.encoder import SAMPLE

KNOWN_HEADS = {"L0H2": (0, 2, 3, 2), "L0H8": (0, 8, 5, 1), "L5H11": (5, 11, 3, 2)}
"""Layer, head, target, source in "the cat sat on the mat"."""


@pytest.fixture(scope="module", params=["recorded", *(["measured"] if FULL else [])])
def full(request):
    """The full checkpoint's results: recorded, and where it is installed measured again."""
    recorded = np.load(DATA / "full_checkpoint.npz")
    lengths = [len(recorded[f"previous_word_{row}"]) for row in range(len(SENTENCES))]
    if request.param == "recorded":
        return {"vectors": recorded["vectors"], "weights": recorded["weights"], "lengths": lengths}
    encoder = models.load(FULL)
    return {
        "vectors": encoder.sentence_vector(SENTENCES),
        "weights": all_weights(encoder, CAT),
        "lengths": [len(encoder.tokenize(text)) for text in SENTENCES],
    }


def test_the_sample_fits_in_16_mb():
    assert (SAMPLE / "model.safetensors").stat().st_size <= 16_000_000


def test_the_samples_vectors_are_near_the_full_checkpoints(sample, full):
    cosine = (full["vectors"] * sample.sentence_vector(SENTENCES)).sum(axis=1)
    kept = [
        len(sample.tokenize(text)) == full["lengths"][row] for row, text in enumerate(SENTENCES)
    ]
    assert sum(kept) == 19  # of the 22; in the others a rare word falls into pieces
    assert cosine[kept].min() > 0.997
    assert cosine[kept].mean() > 0.998
    assert cosine.min() > 0.82
    assert cosine.mean() > 0.986


def test_the_samples_weights_are_near_the_full_checkpoints(sample, full):
    apart = np.abs(all_weights(sample, CAT) - full["weights"])
    assert apart.max() < 0.075
    assert apart.mean() < 0.003


@pytest.mark.parametrize("where", KNOWN_HEADS.values(), ids=KNOWN_HEADS)
def test_the_known_heads_are_within_a_hundredth_of_the_full_checkpoints(sample, full, where):
    assert abs(all_weights(sample, CAT)[where] - full["weights"][where]) < 0.01


def test_layer_0_head_2_looks_at_the_previous_word_in_every_sentence(sample):
    for text in SENTENCES:
        weights = sample.run(text).layers[0].weights(heads=[2])[0, 0]
        assert np.diagonal(weights, offset=-1).min() > 0.95, text


def test_layer_5_head_11_looks_from_sat_to_cat(sample):
    tokens = sample.tokenize(CAT).tokens
    row = sample.run(CAT).layers[5].weights(heads=[11], queries=[tokens.index("sat")])[0, 0, 0]
    assert tokens[row.argmax()] == "cat"
    assert row.max() > 0.87


def test_most_of_layers_1_to_4_rest_on_the_first_token(sample):
    strongest = all_weights(sample, CAT)[1:5].argmax(axis=-1)
    assert (strongest == 0).mean() > 0.75


def test_no_english_sentence_has_an_unknown_token(sample):
    printable = "".join(map(chr, range(33, 127)))
    for text in [*SENTENCES, *printable, f"x{printable}", "naïve “curly” — dashes… 20 € ½ £5 25°"]:
        assert "[UNK]" not in sample.tokenize(text).tokens, text


def test_every_character_of_the_vocabulary_can_be_written_alone_and_as_a_piece():
    vocabulary = Tokenizer.from_file(str(SAMPLE / "tokenizer.json")).get_vocab()
    own = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    for word in vocabulary.keys() - own:
        first = "##" + word[2] if word.startswith("##") and len(word) > 2 else word[0]
        rest = word[3:] if word.startswith("##") and len(word) > 2 else word[1:]
        assert {first, *("##" + letter for letter in rest)} <= vocabulary.keys(), word


def test_ids_are_the_rows_of_the_word_table():
    vocabulary = json.loads((SAMPLE / "tokenizer.json").read_text())["model"]["vocab"]
    size = json.loads((SAMPLE / "config.json").read_text())["vocab_size"]
    assert sorted(vocabulary.values()) == list(range(size))
