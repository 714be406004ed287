"""What the command refuses is one line on stderr, and its exit code is 2."""

from __future__ import annotations

import pytest

from material.command import CAT, run


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
