"""The command as a user meets it: what it prints, where it prints it, and its exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

import mhakit
from mhakit import models
from mhakit.cli.commands import command
from mhakit.errors import MhakitWarning

CAT = "the cat sat on the mat"
LONG = "The café's owner said :smile: [red]hi[/red] while $x_1$ rose on the terrace outside."


def run(*arguments, expect=0, width=80):
    """Run the command in this process; return what it printed to stdout and stderr."""
    result = CliRunner().invoke(command, list(arguments), env={"COLUMNS": str(width)})
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.stdout, result.stderr


def as_json(*arguments):
    out, err = run(*arguments, "--json")
    assert err == ""
    return json.loads(out)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["heads", " "], "sentence must have at least one word, got ' '"),
        (["heads", CAT, "--combine", "averge"], "got 'averge'; did you mean 'average'?"),
        (["heads", CAT, "--model", "nowhere"], "got 'nowhere', which is no directory"),
        (["heads", CAT, "--plot", "heads.gif"], "end in one of .svg, .png, .pdf, got 'heads.gif'"),
        (["heads", CAT, "--plot", "nowhere/heads.svg"], "a directory that exists, got 'nowhere/"),
        (["heads", "word " * 600], "sentence must have at most 510 tokens"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_exit_code_2(arguments, message):
    out, err = run(*arguments, expect=2)
    assert out == ""
    assert err.startswith("mhakit: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--layer", "6"), "layer must be between 0 and 5, got 6"),
        (("--layer", "-1"), "layer must be between 0 and 5, got -1"),
        (("--head", "2,12"), "head must be between 0 and 11, got 12"),
        (("--head", "two"), "must be a number, or several with commas between, got 'two'"),
    ],
)
def test_a_layer_or_head_out_of_range_is_a_usage_error(option, message):
    out, err = run("heads", CAT, *option, expect=2)
    assert out == ""
    assert err.startswith("Usage: ")
    assert message in err


def test_combinations_are_listed_with_paper_distribution_and_size():
    out, _ = run("combinations")
    assert line_of(out, "average")[:3] == ["average", "arXiv:1710.10903", "mhakit"]
    assert line_of(out, "average")[-1] == "12,672"
    assert line_of(out, "concat_project")[-1] == "147,840"
    smaller, _ = run("combinations", "--model-width", "64", "--num-heads", "4", "--head-width", "8")
    assert line_of(smaller, "concat_project")[-1] == f"{4 * 8 * 64 + 64:,}"


def line_of(out, name):
    return next(line.split() for line in out.splitlines() if line.split()[:1] == [name])


def test_combinations_as_json():
    rows = {row["name"]: row for row in as_json("combinations", "--num-heads", "6")}
    assert rows["average"]["parameters"] == 64 * 384 + 384  # the head's width follows: M / H
    assert rows["average"]["distribution"] == "mhakit"


def test_a_combination_that_these_sizes_do_not_suit_is_listed_with_its_reason(monkeypatch):
    from mhakit.errors import ParameterError
    from mhakit.registry import find

    def never(self, shape):
        raise ParameterError(f"num_heads must be even, got {shape.num_heads}; use one more")

    monkeypatch.setattr(find("average"), "validate", never)
    out, _ = run("combinations", "--num-heads", "3")
    assert line_of(out, "average")[-1] == "-"
    assert "average: num_heads must be even, got 3; use one more" in " ".join(out.split())


def test_info_tells_versions_threads_and_why_a_backend_is_missing():
    told = as_json("info")
    assert told["mhakit"] == mhakit.__version__
    assert told["numpy"] == np.__version__
    assert {"python", "numba", "llvmlite", "threads", "threading_layer"} <= told.keys()
    assert told["vector_bytes"] in (16, 32, 64)
    assert told["backends"]["cpu"] is None
    reason = told["backends"]["cuda"]
    out, _ = run("info", width=200)
    assert "backend cpu        available" in out
    assert reason is None or " ".join(reason.split()) in " ".join(out.split())
    assert f"{told['vector_bytes']} bytes" in out
    assert told["score_mods"]["alibi(slopes=None)"] == f"mhakit {mhakit.__version__}"
    assert re.search(r"^score mods  +alibi\(slopes=None\), distance_decay", out, re.MULTILINE)
    assert re.search(r"^mixings  .*talking_heads", out, re.MULTILINE)


def test_the_version_is_printed():
    assert run("--version")[0] == f"mhakit {mhakit.__version__}\n"


def test_a_warning_of_a_plugin_is_one_line_on_stderr(monkeypatch):
    from mhakit.cli import facts

    def warn(*sizes):
        warnings.warn("plugin left out: stranger 1.0", MhakitWarning, stacklevel=1)
        return []

    monkeypatch.setattr(facts, "combination_rows", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("combinations")[1] == "mhakit: warning: plugin left out: stranger 1.0\n"


def from_a_fresh_process(program, expect=0):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == expect, done.stderr
    return done


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_the_extra_the_command_says_which_and_no_more(module):
    done = from_a_fresh_process(
        f"import sys; sys.modules[{module!r}] = None; import mhakit.cli; mhakit.cli.main()",
        expect=2,
    )
    assert done.stdout == ""
    assert done.stderr.startswith(f"mhakit: the command needs {module}, which is not installed; ")
    assert done.stderr.endswith('pip install "mhakit[cli]" brings it\n')


def test_the_help_needs_neither_numba_nor_a_model():
    done = from_a_fresh_process(
        "import sys, mhakit.cli\n"
        "sys.argv = ['mhakit', 'heads', '--help']\n"
        "try: mhakit.cli.main()\n"
        "finally: sys.exit(len({'numba', 'scipy', 'tokenizers', 'matplotlib'} & sys.modules.keys()))"
    )
    assert "Usage: mhakit heads" in done.stdout


def test_a_letter_the_terminal_lacks_is_a_question_mark_and_no_error():
    done = from_a_fresh_process(
        "import sys, mhakit.cli\n"
        "sys.stdout.reconfigure(encoding='ascii')\n"
        "sys.argv = ['mhakit', 'heads', 'the cat', '--layer', '0', '--head', '2']\n"
        "mhakit.cli.main()"
    )
    assert re.search(r"cat  \? the +1\.0", done.stdout)


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
