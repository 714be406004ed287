"""`mhakit heads`: tables, one head in full, JSON, another combination, pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from material.command import CAT, as_json, run
from mhakit import models

LONG = "The café's owner said :smile: [red]hi[/red] while $x_1$ rose on the terrace outside."


def row_of(out, layer, head):
    """Return the line of one head in the tables."""
    table = out.split(f"Layer {layer}\n")[1]
    return next(line for line in table.splitlines() if line.split()[0] == str(head))


def test_every_head_of_every_layer_has_its_row():
    out, err = run("heads", CAT)
    assert err == ""
    for layer in range(6):
        for head in range(12):
            assert len(row_of(out, layer, head).split()) == 14  # head, entropy, 6 words
    assert out.count("combined by concat_project: norm ") == 6


def test_layer_0_head_2_is_shown_looking_at_the_previous_word():
    cells = row_of(run("heads", CAT)[0], 0, 2).split()
    assert cells[2::2] == ["[CLS]", "the", "cat", "sat", "on", "the²"]
    assert cells[1] == "0.00"
    assert set(cells[3::2]) == {"1.0"}


def test_one_head_is_shown_in_full():
    out, _ = run("heads", CAT, "--layer", "5", "--head", "11")
    assert "Layer 5, head 11   entropy 0.73" in out
    line = next(line for line in out.splitlines() if line.split()[:1] == ["sat"])
    assert line.split()[:4] == ["sat", "→", "cat", ".88"]
    assert "then [CLS] .05  mat .03" in line


def test_what_is_known_is_told_of_the_heads_that_are_shown_and_of_no_others():
    known = "layer 0 head 2 looks at the previous word"
    assert f'Known: {known}, layer 5 head 11 at "cat".' in run("heads", CAT)[0]
    assert f"Known: {known}." in run("heads", "hello there")[0]
    assert "Known" not in run("heads", CAT, "--layer", "3")[0]
    assert "Known" not in run("heads", "hello there", "--layer", "5")[0]


@pytest.mark.parametrize("text", [CAT, LONG, "antidisestablishmentarianism " * 8])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_none_has_colour_codes(text, width):
    out, _ = run("heads", text, "--layer", "0,5", "--combine", "average", width=width)
    assert max(len(line) for line in out.splitlines()) <= width
    assert "\x1b" not in out


def test_a_sentence_that_looks_like_markup_is_shown_as_typed():
    out, _ = run("heads", LONG, "--layer", "0", "--head", "2")
    assert ":smile: [red]hi[/red]" in " ".join(out.split())


def test_json_holds_everything_the_model_computed():
    told = as_json("heads", CAT)
    sentence = models.load().run(CAT)
    assert told["tokens"] == list(sentence.sentences[0].tokens)
    assert told["sentence"] == CAT
    assert [layer["layer"] for layer in told["layers"]] == list(range(6))
    for layer, computed in zip(told["layers"], sentence.layers, strict=True):
        weights = np.array([head["weights"] for head in layer["heads"]])
        np.testing.assert_allclose(weights, computed.weights()[0], rtol=0, atol=1e-6)
        norms = np.linalg.norm(computed.combined[0], axis=-1)
        np.testing.assert_allclose(layer["combined"]["norms"], norms, rtol=1e-4)


def test_json_tells_each_targets_strongest_source_weight_and_entropy():
    head = as_json("heads", CAT, "--layer", "5", "--head", "11")["layers"][0]["heads"][0]
    sat = head["targets"][3]
    assert (sat["token"], sat["source_token"], sat["source"]) == ("sat", "cat", 2)
    row = np.array(head["weights"][3])
    assert sat["weight"] == row.max()
    assert sat["entropy"] == pytest.approx(-(row * np.log(row)).sum(), abs=1e-4)
    words = [target["entropy"] for target in head["targets"][1:-1]]
    assert head["entropy"] == pytest.approx(np.mean(words), abs=1e-5)


@pytest.mark.parametrize(
    "options", [("--layer", "5,0", "--head", "2", "--head", "11"), ("--layer=0", "--layer=5,0", "--head=11,2")]
)  # fmt: skip
def test_layers_and_heads_are_chosen_by_option_and_comma(options):
    told = as_json("heads", CAT, *options)
    assert [layer["layer"] for layer in told["layers"]] == [0, 5]
    assert all([head["head"] for head in layer["heads"]] == [2, 11] for layer in told["layers"])


def test_another_combination_is_held_against_the_trained_one():
    own, average = as_json("heads", CAT)["layers"], as_json("heads", CAT, "--combine", "average")
    for before, after in zip(own, average["layers"], strict=True):
        assert after["heads"] == before["heads"]  # heads are always the trained network's
        assert after["combined"]["trained"] == before["combined"]
        assert after["combined"]["combination"] == "average"
        assert after["combined"]["fresh_parameters"] == ["combine.weight"]
        assert abs(after["combined"]["mean_cosine_with_trained"]) < 0.5
    out, _ = run("heads", CAT, "--layer", "0", "--combine", "average")
    assert "combined by average (combine.weight new, seed 0): norm " in out
    assert "trained (concat_project): norm 2.93, 0.33 of the input's; cosine with it -0." in out


def test_the_trained_combination_by_name_is_the_trained_one():
    told = as_json("heads", CAT, "--layer", "0", "--combine", "concat_project")
    combined = told["layers"][0]["combined"]
    assert combined["mean_cosine_with_trained"] == pytest.approx(1)
    assert combined["fresh_parameters"] == []
    out, _ = run("heads", CAT, "--layer", "0", "--combine", "concat_project")
    assert "new" not in out


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_picture_is_drawn_and_stdout_stays_json(tmp_path, suffix):
    path = tmp_path / f"heads{suffix}"
    out, err = run("heads", CAT, "--layer", "0", "--head", "2", "--plot", str(path), "--json")
    assert json.loads(out)["tokens"][2] == "cat"
    assert err == f"mhakit: wrote {path}\n"
    assert path.stat().st_size > 1000


def test_a_model_of_ones_own_is_run_from_its_directory():
    told = as_json(
        "heads", CAT, "--layer", "0", "--head", "2", "--model", str(models.encoder.SAMPLE)
    )
    assert told["layers"] == as_json("heads", CAT, "--layer", "0", "--head", "2")["layers"]
    out, _ = run("heads", CAT, "--model", str(models.encoder.SAMPLE))
    assert "Known" not in out  # what is known is known of the sample by its name
