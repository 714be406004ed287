"""The command run in this process, and what is picked from what it prints."""

from __future__ import annotations

import json

from click.testing import CliRunner

from mhakit.cli.commands import command

CAT = "the cat sat on the mat"


def run(*arguments, expect=0, width=80):
    """Run the command in this process; return what it printed to stdout and stderr."""
    result = CliRunner().invoke(command, list(arguments), env={"COLUMNS": str(width)})
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.stdout, result.stderr


def as_json(*arguments):
    out, err = run(*arguments, "--json")
    assert err == ""
    return json.loads(out)


def line_of(out, name):
    return next(line.split() for line in out.splitlines() if line.split()[:1] == [name])
