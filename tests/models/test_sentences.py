"""Sentences that cannot be run."""

from __future__ import annotations

import pytest

from mhakit import models
from mhakit.errors import ParameterError


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
