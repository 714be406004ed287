"""`mhakit new-plugin`: what it writes, what it refuses, and that mhakit-peak is of its making."""

from __future__ import annotations

import re
import tomllib

import pytest
from click.testing import CliRunner

from material.places import ROOT
from mhakit.cli.commands import command

PEAK = ROOT / "plugins" / "mhakit-peak"
ITS_OWN = {"README.md", "src/mhakit_peak/__init__.py", "tests/test_peak.py"}


def new_plugin(*arguments, expect=0):
    """Run the command; return what it printed to stdout and stderr."""
    result = CliRunner().invoke(command, ["new-plugin", *map(str, arguments)])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.stdout, result.stderr


def files(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in found if "__pycache__" not in p.parts
    }


def test_it_writes_the_distribution_that_mhakit_peak_is(tmp_path):
    new_plugin(
        "mhakit-peak", "--directory", tmp_path, "--author", "The mhakit authors",
        "--description", "per channel the head output of largest magnitude",
    )  # fmt: skip
    written, peak = files(tmp_path / "mhakit-peak"), files(PEAK)
    assert written.keys() == peak.keys() >= ITS_OWN
    for name in written.keys() - ITS_OWN:
        assert written[name] == peak[name], name


def test_every_name_follows_from_the_one_that_was_given(tmp_path):
    new_plugin("mhakit-Very.loud", "--directory", tmp_path)
    folder = tmp_path / "mhakit-Very.loud"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "mhakit-Very.loud"
    assert project["project"]["entry-points"] == {"mhakit": {"very_loud": "mhakit_very_loud"}}
    source = (folder / "src" / "mhakit_very_loud" / "__init__.py").read_text()
    assert "class VeryLoud(HeadCombination):" in source
    assert 'name = "very_loud"' in source
    assert (folder / "tests" / "test_very_loud.py").exists()
    assert not [name for name, text in files(folder).items() if b"$" in text or ".in" in name]


def test_what_to_do_next_is_printed_alone_on_stdout(tmp_path):
    out, err = new_plugin("mhakit-loud", "--directory", tmp_path)
    folder = tmp_path / "mhakit-loud"
    assert out == f'pip install -e {folder}"[test]" && pytest {folder}\n'
    assert err == f"mhakit: wrote {folder}\n"


@pytest.mark.parametrize(
    ("name", "cls"), [("mhakit-array", "ArrayHeads"), ("mhakit-true", "TrueHeads")]
)
def test_a_class_never_takes_a_name_that_its_own_module_needs(tmp_path, name, cls):
    new_plugin(name, "--directory", tmp_path)
    (source,) = (tmp_path / name).glob("src/*/__init__.py")
    compile(source.read_text(), "source", "exec")
    assert f"class {cls}(" in source.read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "letters, digits and - between them, as pip takes it, and at most 40 characters, got ''"),
        ("-loud", "letters, digits and - between them"),
        ("loud/er", "letters, digits and - between them, .* got 'loud/er'; try mhakit-loud"),
        ("l" * 41, "at most 40 characters"),
        ("mhakit-2loud", "make a name in Python, got 'mhakit-2loud', which makes '2loud'"),
        ("mhakit-class", "make a name in Python, got 'mhakit-class', which makes 'class'"),
        ("mhakit", "make a name in Python, got 'mhakit'"),
        ("numpy", "a package 'numpy' can be imported already; take another name"),
        ("mhakit-average", "combination 'average' is registered by mhakit .*; take another name"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, name, message):
    out, err = new_plugin("--directory", tmp_path, "--", name, expect=2)
    assert out == ""
    assert re.search(message, err)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "mhakit-loud").mkdir()
    _, err = new_plugin("mhakit-loud", "--directory", tmp_path, expect=2)
    assert "must go to a folder that is not there yet, got " in err
    assert not files(tmp_path)
    (tmp_path / "mhakit-dangling").symlink_to(tmp_path / "nowhere")
    _, err = new_plugin("mhakit-dangling", "--directory", tmp_path, expect=2)
    assert "move it away, or take another name" in err


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    _, err = new_plugin("mhakit-loud", "--directory", tmp_path / "file", expect=2)
    assert "a plugin must go where files can be written, got " in err
    assert "Not a directory" in err


def test_what_fails_halfway_leaves_nothing_behind(tmp_path, monkeypatch):
    from mhakit.cli import scaffold

    written = []

    def full(path, *text, **keywords):
        written.append(path)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        path.touch()

    monkeypatch.setattr(scaffold.Path, "write_text", full)
    _, err = new_plugin("mhakit-loud", "--directory", tmp_path, expect=2)
    assert "got '" + str(tmp_path / "mhakit-loud") + "': No space left on device" in err
    assert len(written) == 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--description", "--author"])
@pytest.mark.parametrize("text", ['so "called"', "two\nlines", "C:\\"])
def test_a_text_that_would_break_the_files_is_refused(tmp_path, option, text):
    _, err = new_plugin("mhakit-loud", "--directory", tmp_path, option, text, expect=2)
    assert "must be one line without quotation marks and backslashes, got " in err
    assert not list(tmp_path.iterdir())
