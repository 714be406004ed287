"""Fail where HEAD lost speed against BASE: ``python -m asv_benchmarks.gate BASE``.

Both commits are measured beside the same peers, by turns, in processes of their own. What seems
lost is measured again in new ones, and the exit code is 1 only where it is lost there, too: so
``git bisect run python -m asv_benchmarks.gate BASE --only ROW`` finds the commit. How it is decided
stands in ``verdict.py``.
"""

import argparse
import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

from asv_benchmarks import ROOT
from asv_benchmarks.library import commit_of, git, library, refuse_changes, subject_of
from asv_benchmarks.side import Side
from asv_benchmarks.verdict import Verdict, decide
from mhakit.bench.contest import installed
from mhakit.errors import MhakitError, MissingExtra, ParameterError

__all__ = ["BENCHMARKS", "chosen", "compare", "main", "report"]

BENCHMARKS = (
    ("dense 1,12,512,512,64", "torch"),
    ("causal 1,12,2048,2048,64", "torch"),
    # torch takes half a second with the mask
    ("window 256,0 causal 1,4,8192,8192,64", "matmul"),
    ("padded 8,12,512,512,64", "torch"),
    ("random mask 1,12,1024,1024,64", "torch"),
    ("additive bias 1,12,1024,1024,64", "torch"),
    ("bfloat16 causal 1,12,1024,1024,64", "torch"),
    ("decoding 1,32/8,1,8192,128", "read"),
    ("odd 1,12,17,333,64", "torch"),
    ("tiny 1,8,4,4,16", "torch"),
    ("layer 8,128", "torch"),
    ("combine average 12,64,512", "numpy"),
)
"""A row a kind of kernel and whom it is held against; no score_mod, for it compiles each time."""

ROUNDS, TRIALS, MORE = 2, 3, 3
SECONDS = 0.05


def chosen(patterns):
    """Return the benchmarks whose name holds one of the patterns, all where there is none."""
    found = [
        (row, against)
        for row, against in BENCHMARKS
        if not patterns or any(p in row or fnmatchcase(row, p) for p in patterns)
    ]
    if not found:
        raise ParameterError(
            f"only must be part of a benchmark's name, got {patterns[0]!r}; "
            f"they are {', '.join(row for row, _ in BENCHMARKS)}"
        )
    return found


def compare(base, head, benchmarks, *, say=lambda text: None):
    """Return the rounds of every benchmark by name, trial by trial, and what could not be done.

    ``base`` and ``head`` are folders that mhakit is imported from.
    """
    recorded = {row: [] for row, _ in benchmarks}
    failed = {}
    wanted = list(benchmarks)
    for trial in range(TRIALS + MORE):
        if trial == TRIALS:
            wanted = [b for b in wanted if decide(recorded[b[0]]).lost]
            if wanted:
                say(f"again: {', '.join(row for row, _ in wanted)}")
        if not wanted:
            break
        with Side(base) as one, Side(head) as other:
            sides = one, other
            for row, against in wanted:  # both make and check their sides at once
                for side in sides:
                    side.ask(row=row, against=against, seconds=0.0)
                for side in sides:
                    answer = side.answer()
                    if "failed" in answer:
                        failed[row] = answer["failed"]
            wanted = [b for b in wanted if b[0] not in failed]
            rounds = {row: [] for row, _ in wanted}
            for turn in range(ROUNDS):
                for row, against in wanted:
                    pair = [0.0, 0.0]
                    for i in (0, 1) if (turn + trial) % 2 == 0 else (1, 0):
                        sides[i].ask(row=row, against=against, seconds=SECONDS)
                        pair[i] = _ratio(sides[i].answer())
                    rounds[row].append(tuple(pair))
            for row, pairs in rounds.items():
                recorded[row].append(pairs)
        say(f"trial {trial + 1}: {len(wanted)} benchmarks")
    return {row: trials for row, trials in recorded.items() if trials}, failed


def _ratio(answer):
    """Return how many times as long the peer takes, by the median of the turns."""
    if "failed" in answer:
        raise RuntimeError(f"a row that was measured fails now: {answer['failed']}")
    turns = zip(answer["mine"], answer["peer"], strict=True)
    return median(peer / mine for mine, peer in turns) * answer["share"]


def report(name, against, verdict: Verdict, base, head):
    """Return a line on a benchmark; ``base`` and ``head`` name the commits."""
    text = (
        f"{name} against {against}: {verdict.base:.3f} at {base}, {verdict.head:.3f} at {head}, "
        f"{verdict.times:.2f} times as long (spread {100 * verdict.spread:.0f} %)"
    )
    return f"{'LOST' if verdict.lost else 'kept'} {text}"


def main(arguments=None):
    """Compare two commits; return 0 where nothing is lost, 1 where something is."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.gate", description=__doc__)
    parser.add_argument("base", metavar="BASE", help="the commit that HEAD must not lose against")
    parser.add_argument("--only", action="append", default=[], help="part of a benchmark's name")
    parser.add_argument("--json", metavar="FILE", help="where the ratios go that were measured")
    told = parser.parse_args(arguments)
    try:
        return _gate(told.base, told.only, told.json)
    except MhakitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _gate(base_name, only, file):
    benchmarks = chosen(only)
    base, head = commit_of(ROOT, base_name), commit_of(ROOT, "HEAD", "HEAD")
    refuse_changes(ROOT)
    if not installed("torch"):
        raise MissingExtra(
            "the gate holds commits against torch, and torch is not installed; "
            'pip install ".[peers]" brings it'
        )
    print(f"BASE {subject_of(ROOT, base)}\nHEAD {subject_of(ROOT, head)}", flush=True)
    recorded, failed = compare(
        library(ROOT, base), library(ROOT, head), benchmarks, say=lambda t: print(t, flush=True)
    )
    if file:
        Path(file).write_text(json.dumps({"trials": recorded, "failed": failed}) + "\n")
    lost = []
    for row, against in benchmarks:
        if row in failed:
            print(f"FAILED {row} against {against}: {failed[row]}")
            continue
        verdict = decide(recorded[row])
        print(report(row, against, verdict, base[:8], head[:8]))
        lost += [row] * verdict.lost
    if lost:
        count = int(git(ROOT, "rev-list", "--count", f"{base}..{head}"))
        by = subject_of(ROOT, head) if count == 1 else f"one of the {count} commits after BASE"
        print(f"lost: {', '.join(lost)}; by {by}")
    elif not failed:
        print("nothing is lost")
    return int(bool(lost or failed))


if __name__ == "__main__":
    sys.exit(main())
