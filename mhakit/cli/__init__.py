"""The `mhakit` command. Here is only its door, which opens without the extra ``cli`` too."""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; without click and rich, say which extra brings them.

    Examples
    --------
    >>> import mhakit.cli
    >>> callable(mhakit.cli.main)
    True
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?"
    try:
        from mhakit.cli.commands import command
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(
            f"mhakit: the command needs {package}, which is not installed; "
            'pip install "mhakit[cli]" brings it',
            file=sys.stderr,
        )
        sys.exit(2)
    command(prog_name="mhakit")
