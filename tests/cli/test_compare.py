"""`mhakit compare`: its table, its JSON, texts of one's own."""

from __future__ import annotations

import re

import numpy as np
import pytest

from material.command import as_json, line_of, run
from mhakit import models


def test_combinations_are_compared_best_first_and_the_table_fits():
    out, err = run("compare", "--layer", "0", "--combine", "max", "--combine", "concat_project")
    assert err == ""
    assert max(len(line) for line in out.splitlines()) <= 80
    names = [line.split()[0] for line in out.splitlines() if line.split()[:1] and line[:1] == " "]
    assert names.index("concat_project") < names.index("max")
    assert line_of(out, "concat_project")[1:5] == ["1.00", "1.00", "147,840", "384"]
    told = " ".join(out.split())
    assert "embedded sample all-MiniLM-L6-v2, layer 0, 243 sentences" in told
    assert "A probe: the heads are frozen as they were for concat_project" in told


def test_a_comparison_as_json_goes_layer_by_layer_and_the_table_shows_the_mean():
    options = ("--layer", "3,0", "--combine", "average", "--seed", "1")
    told = as_json("compare", *options)
    assert [layer["layer"] for layer in told["layers"]] == [0, 3]
    shares = [layer["combinations"][0]["recovered"] for layer in told["layers"]]
    assert 0.1 < min(shares) < max(shares) < 0.9
    assert told["sentences"] == 243
    out, _ = run("compare", *options)
    assert "mean of layers 0, 3" in out
    assert line_of(out, "average")[1] == f"{np.mean(shares):.2f}"


def test_a_text_of_ones_own_is_fitted_to(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(models.read_sentences()[:70]), encoding="utf-8")
    told = as_json("compare", "--text", str(text), "--layer", "0", "--combine", "average")
    assert told["sentences"] == 70
    row = told["layers"][0]["combinations"][0]
    assert row["recovered"] < row["recovered_fitted"]


def test_one_that_these_heads_do_not_suit_is_told_with_its_reason(monkeypatch):
    from mhakit.errors import ParameterError
    from mhakit.registry import find

    def never(self, shape):
        raise ParameterError(f"num_heads must be odd, got {shape.num_heads}; use one more")

    monkeypatch.setattr(find("max"), "validate", never)
    out, _ = run("compare", "--layer", "0,1", "--combine", "max", "--combine", "average")
    assert "max: num_heads must be odd, got 12; use one more" in " ".join(out.split())
    assert line_of(out, "average")[3] == "12,672"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"\xff\xfe no text",
            "a text must be written in UTF-8, got .* with other bytes at 0; conv",
        ),
        (None, "a text must be a file that can be read, got '.*': No such file or directory"),
        (b"", "x must have at least 5 sequences, so that some can be held out, got B=0"),
        (b"one\ntwo\nthree\nfour\nfive", "x must have more words: at least 66 to fit on"),
    ],
)
def test_a_text_that_cannot_be_compared_on_is_one_line_on_stderr(tmp_path, text, message):
    path = tmp_path / "text.txt"
    if text is not None:
        path.write_bytes(text)
    out, err = run("compare", "--text", str(path), "--combine", "average", expect=2)
    assert out == ""
    assert re.search(message, err)
    assert err.count("\n") == 1
