"""The command in a process of its own: without its extra, for help alone, in ASCII."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


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
