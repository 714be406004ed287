"""The gate's decision, on ratios that were really measured, and what it refuses."""

import json
import math
import subprocess
import sys
from statistics import median

import pytest

from material.places import DATA, ROOT

pytestmark = pytest.mark.usefixtures("from_the_checkout")
RECORDED = DATA / "gate"


def records(kind):
    found = sorted(RECORDED.glob(f"{kind}-*.json"))
    assert found
    return [json.loads(path.read_text())["trials"] for path in found]


def lost(trials):
    from asv_benchmarks.verdict import decide

    return {row for row, measured in trials.items() if decide(measured).lost}


def causal(trials):
    return {row for row in trials if "causal" in row}


def test_where_nothing_changed_nothing_is_lost():
    for trials in records("same"):
        assert lost(trials) == set()


def test_a_planted_slowdown_is_found_and_nothing_else():
    for trials in records("slower"):
        assert lost(trials) == causal(trials)


def test_a_rule_that_knows_no_spread_would_alarm_and_one_that_knows_only_the_worst_would_miss():
    def by_any_round(trials):
        return {
            row
            for row, measured in trials.items()
            if max(math.log(b / h) for trial in measured for b, h in trial) > 0.08
        }

    def by_every_round(trials):
        return {
            row
            for row, measured in trials.items()
            if min(math.log(b / h) for trial in measured for b, h in trial) > math.log(1.3)
        }

    assert any(by_any_round(trials) for trials in records("same"))
    assert any(by_every_round(trials) != causal(trials) for trials in records("slower"))


def test_a_gain_is_no_loss():
    for trials in records("slower"):
        turned = {
            row: [[(head, base) for base, head in trial] for trial in measured]
            for row, measured in trials.items()
        }
        assert lost(turned) == set()


def test_a_loss_within_the_spread_is_no_loss():
    from asv_benchmarks.verdict import decide

    verdict = decide([[(1.5, 1.3), (2.0, 1.2)], [(1.2, 1.0), (2.0, 1.1)], [(1.4, 1.2), (1.9, 1.1)]])
    assert verdict.least > 0.08
    assert verdict.spread > verdict.loss
    assert not verdict.lost


def test_a_line_names_the_benchmark_both_figures_and_the_commits():
    from asv_benchmarks.gate import report
    from asv_benchmarks.verdict import decide

    trials = records("slower")[0]["causal 1,12,2048,2048,64"]
    text = report("causal 1,12,2048,2048,64", "torch", decide(trials), "1234abcd", "5678cdef")
    base = median(base for trial in trials for base, _ in trial)
    head = median(head for trial in trials for _, head in trial)
    assert text.startswith(
        f"LOST causal 1,12,2048,2048,64 against torch: {base:.3f} at 1234abcd, {head:.3f} at 5678cdef"
    )


def gate(*arguments, cwd=ROOT, module="gate"):
    done = subprocess.run(
        [sys.executable, "-m", f"asv_benchmarks.{module}", *arguments],
        capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_what_is_asked_wrongly_is_named():
    code, error = gate("no-such-commit")
    assert (code, error) == (
        2,
        "ParameterError: BASE must name a commit of this repository, got 'no-such-commit'; "
        "git log names them\n",
    )
    code, error = gate("HEAD", "--only", "no such row")
    assert code == 2
    assert "only must be part of a benchmark's name, got 'no such row'; they are dense" in error


@pytest.fixture
def clone(tmp_path):
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "m")], check=True)
    return tmp_path / "m"


def test_changes_that_are_not_committed_are_refused(clone):
    from asv_benchmarks.library import refuse_changes
    from mhakit.errors import ParameterError

    refuse_changes(clone)
    (clone / "mhakit" / "layer" / "new.py").write_text("")
    with pytest.raises(
        ParameterError, match=r"no change that is not committed.* got .*new\.py; commit"
    ):
        refuse_changes(clone)


def test_without_torch_the_gate_and_the_history_say_what_brings_it(monkeypatch, capsys):
    from asv_benchmarks import gate, keep

    monkeypatch.setattr(gate, "refuse_changes", lambda root: None)
    for module, argument in ((gate, "HEAD"), (keep, "HEAD^!")):
        monkeypatch.setattr(module, "installed", lambda peer: False)
        assert module.main([argument]) == 2
        said = capsys.readouterr().err
        assert 'torch is not installed; pip install ".[peers]" brings it' in said


def test_a_commit_becomes_a_folder_with_its_own_combinations(clone):
    from asv_benchmarks.library import commit_of, library

    folder = library(clone, commit_of(clone, "HEAD"))
    code = (
        "import mhakit; print(mhakit.__file__); "
        "print(next(r for r in mhakit.combinations() if r.name == 'average').version)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(folder / "mhakit" / "__init__.py"), "0"]
