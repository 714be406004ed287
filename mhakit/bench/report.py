"""The command's work: measure the rows, show each as it comes, write the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mhakit.bench.contest import load_peers
from mhakit.bench.machine import facts
from mhakit.bench.measuring import Result, headline, measure_all
from mhakit.bench.rows import Row
from mhakit.bench.table import Table
from mhakit.bench.timing import FULL, QUICK
from mhakit.errors import ParameterError

__all__ = ["as_data", "run"]


def run(rows: Iterable[Row], *, quick: bool = False, file: str | None = None) -> bool:
    """Measure and show rows; return whether every check held.

    ``file`` is where all figures go as JSON; ``-`` is stdout, and then nothing else is printed.
    """
    if file not in (None, "-"):
        _writable(Path(str(file)))
    load_peers()
    machine = facts()
    table = None if file == "-" else Table()
    if table is not None:
        table.begin(machine)
    results = []
    for result in measure_all(rows, QUICK if quick else FULL):
        results.append(result)
        if table is not None:
            table.show(result)
    if table is not None:
        table.end(results, headline(results))
    if file is not None:
        text = json.dumps(as_data(machine, results, quick), indent=1, allow_nan=False) + "\n"
        if file == "-":
            sys.stdout.write(text)
        else:
            Path(file).write_text(text, encoding="utf-8")
    return not any(result.wrong for result in results)


def as_data(machine: dict[str, Any], results: Iterable[Result], quick: bool) -> dict[str, Any]:
    """Return everything that was measured as numbers, strings and lists."""
    told = list(results)
    return {
        "machine": machine,
        "quick": quick,
        "rows": [result.to_dict() for result in told],
        "geometric_mean": headline(told),
    }


def _writable(path: Path) -> None:
    """Raise before anything is measured where its figures could not be written."""
    if path.is_dir() or not path.parent.is_dir():
        raise ParameterError(
            f"json must name a file in a directory that exists, got {str(path)!r}; "
            "make the directory, or write to - for stdout"
        )
