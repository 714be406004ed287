"""Show the gate at work: ``python -m asv_benchmarks.prove_gate``.

In a scratch clone two commits follow HEAD: one changes nothing that is measured, one makes causal
attention take 1.3 times as long. Run by run the gate is asked about each. It must find nothing in
the first, and the causal benchmarks, and no others, in the second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from asv_benchmarks import ROOT
from asv_benchmarks.gate import BENCHMARKS
from asv_benchmarks.library import git, refuse_changes
from mhakit.errors import MhakitError

__all__ = ["PLANTED", "main"]

PLACE = "mhakit/api/attending.py"
PLANTED = """

_as_it_was = attention


def attention(*arrays, **keywords):  # noqa: D103
    import time

    started = time.perf_counter()
    result = _as_it_was(*arrays, **keywords)
    if keywords.get("causal"):
        until = started + {times} * (time.perf_counter() - started)
        while time.perf_counter() < until:
            pass
    return result
"""


def main(arguments=None):
    """Run the gate on both commits so many times; return 0 where it was right each time."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.prove_gate")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--times", type=float, default=1.3, help="how many times as long")
    parser.add_argument("--json", metavar="FOLDER", help="where the measured ratios go")
    told = parser.parse_args(arguments)
    try:
        refuse_changes(ROOT)
    except MhakitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place, "mhakit")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        base = git(clone, "rev-parse", "HEAD")
        same = commit(clone, "README.md", "\n", "Nothing that is measured changes")
        slow = commit(clone, PLACE, PLANTED.format(times=told.times), "Causal takes longer")
        causal = {row for row, _ in BENCHMARKS if "causal" in row}
        right = 0
        for run in range(told.runs):
            for changed, expected in ((same, set()), (slow, causal)):
                found = ask(clone, base, changed, told.json and Path(told.json, f"{run}"))
                right += found == expected
                print("as it must be" if found == expected else f"WRONG: expected {expected}")
    print(f"right {right} times of {2 * told.runs}")
    return int(right < 2 * told.runs)


def commit(clone, file, added, message):
    """Add to a file, commit it after HEAD, and return the commit; HEAD stays where it was."""
    path = clone / file
    path.write_text(path.read_text() + added)
    who = ("-c", "user.name=scratch", "-c", "user.email=scratch@localhost")
    git(clone, *who, "commit", "--quiet", "--all", "--message", message)
    made = git(clone, "rev-parse", "HEAD")
    git(clone, "reset", "--quiet", "--hard", "HEAD~1")
    return made


def ask(clone, base, changed, file):
    """Return the benchmarks that the gate finds lost, which it is shown to say."""
    git(clone, "checkout", "--quiet", "--detach", changed)
    kept = Path(f"{file or clone.parent / 'told'}-{changed[:8]}.json")
    command = [sys.executable, "-m", "asv_benchmarks.gate", base, "--json", str(kept)]
    done = subprocess.run(command, cwd=clone, stdout=subprocess.PIPE, text=True)
    print(f"\n$ python -m asv_benchmarks.gate {base[:8]}   # exit {done.returncode}")
    print(done.stdout, end="", flush=True)
    told = json.loads(kept.read_text())
    lost = {line.split(" against ")[0][5:] for line in done.stdout.splitlines() if "LOST" in line}
    assert bool(lost or told["failed"]) == bool(done.returncode), done.returncode
    return lost


if __name__ == "__main__":
    sys.exit(main())
