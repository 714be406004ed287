"""Measure commits and keep their ratios: ``python -m asv_benchmarks.keep RANGE``.

RANGE is what git calls one, ``v0.1.0..main`` or ``abc1234^!`` for a commit alone, along first
parents. asv measures each commit beside the peers that are installed here and writes its own
format; of that the ratios are kept under ``history/``, by machine, and `asv publish` shows them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from asv_benchmarks import ROOT
from asv_benchmarks.library import git, subject_of
from mhakit.bench.contest import installed
from mhakit.errors import MhakitError, MissingExtra, ParameterError

__all__ = ["HISTORY", "keep", "main"]

HISTORY = ROOT / "asv_benchmarks" / "history"
SERIES = "bench_against_peers."
COLUMNS = ["result", "params", "version"]


def main(arguments=None):
    """Measure a range of commits; return 0 where each of them could be measured."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.keep", description=__doc__)
    parser.add_argument("range", metavar="RANGE", help="the commits, as git log takes them")
    told = parser.parse_args(arguments)
    try:
        for commit in commits_of(told.range):
            print(subject_of(ROOT, commit), flush=True)
            measure(commit)
    except MhakitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def commits_of(given):
    """Return the hashes of a range, oldest first."""
    if not installed("torch"):
        raise MissingExtra(
            "ratios are taken to torch, and torch is not installed; "
            'pip install ".[peers]" brings it'
        )
    try:
        found = git(ROOT, "rev-list", "--first-parent", "--reverse", given, "--").split()
    except ParameterError:
        found = []
    if not found:
        raise ParameterError(
            f"RANGE must hold commits of this repository, got {given!r}; "
            "v0.1.0..main is a range, main^! a commit alone"
        )
    return found


def measure(commit):
    """Have asv measure the ratios of a commit, and keep them."""
    done = subprocess.run(
        ["asv", "run", f"{commit}^!", "-E", "mhakit:same", "--quick", "--bench", SERIES],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = list(ROOT.glob(f".asv/results/*/{commit[:8]}-beside-*.json"))
    if not found:
        sys.stdout.write(done.stdout)
        raise ParameterError(f"asv must be able to measure {commit[:8]}, it ended as above")
    for file in found:
        keep(file, HISTORY / file.parent.name)


def keep(file, folder):
    """Write the ratios of a result of asv into a folder, and its machine beside them."""
    told = json.loads(file.read_text())
    places = [told["result_columns"].index(column) for column in COLUMNS]
    told["results"] = {
        name: [(row + [None] * len(told["result_columns"]))[i] for i in places]
        for name, row in told["results"].items()
        if name.startswith(SERIES) and _measured(row[places[0]])
    }
    told["result_columns"] = COLUMNS
    told["durations"] = {}
    machine = json.loads((file.parent / "machine.json").read_text())
    machine["os"] = machine["os"].split()[0]
    # what a result says of its machine makes its series: as the machine's own file says it
    told["params"] |= {k: machine[k] for k in told["params"] if k in machine}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / file.name, told)
    write(folder / "machine.json", machine)


def _measured(values):
    """Return whether a series has a number: a row that was skipped is NaN, one that failed null."""
    return any(value is not None and value == value for value in values or ())


def write(path: Path, told):
    """Write JSON with a benchmark a line, so that a change can be read."""
    results = told.pop("results", None)
    text = json.dumps(told, sort_keys=True, separators=(", ", ": "))
    if results is not None:
        told["results"] = results
        lines = ",\n".join(f'"{n}": {json.dumps(_short(r))}' for n, r in sorted(results.items()))
        text = f'{text[:-1]}, "results": {{\n{lines}\n}}}}'
    path.write_text(text + "\n", encoding="utf-8")


def _short(value):
    """Return numbers with four digits: no ratio is known better."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_short(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
