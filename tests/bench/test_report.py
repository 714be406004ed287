"""What `mhakit bench` says: targets met, the headline, the table, the command and its JSON."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

import mhakit
from mhakit.bench import process, report
from mhakit.bench.measuring import Result, headline
from mhakit.bench.rows import ROWS
from mhakit.bench.table import Table
from mhakit.bench.timing import QUICK
from mhakit.cli.commands import command
from mhakit.errors import ParameterError


def result(**given):
    return Result("dense", "1,2", "torch", 1.2, None, False, **given)


def test_a_target_is_met_from_its_figure_on_or_down_to_it():
    assert result(measured=1.2).met is True
    assert result(measured=1.19).met is False
    assert result().met is None
    assert replace(result(measured=1.0), target=None).met is None
    assert replace(result(measured=1.0), at_most=True).met is True
    assert replace(result(measured=1.3), at_most=True).met is False


def test_the_headline_is_of_peers_with_a_target_alone():
    told = [
        result(measured=2.0),
        replace(result(measured=8.0), against="numpy"),
        replace(result(measured=100.0), target=None),
        replace(result(measured=100.0), against="matmul"),
        result(),
    ]
    assert headline(told) == pytest.approx(4.0)
    assert headline([result()]) is None


def shown(*results):
    out = io.StringIO()
    table = Table(Console(file=out, width=200, markup=False))
    for told in results:
        table.show(told)
    table.end(results, headline(results))
    return out.getvalue().splitlines()


def test_the_table_says_what_was_reached_missed_wrong_and_missing():
    lines = shown(
        replace(result(measured=2.5, low=2.4, high=2.6), stretch=3.0),
        result(measured=1.0, low=1.0, high=1.0),
        result(note="torch: error 1, allowed 0", wrong=True),
        result(note="torch is not installed"),
    )
    assert lines[0].split() == [
        "dense",
        "1,2",
        "torch",
        "2.500",
        "2.40",
        "to",
        "2.60",
        "1.2",
        "(3)",
        "yes",
    ]
    assert lines[1].split()[-1] == "NO"
    assert lines[2].endswith("WRONG torch: error 1, allowed 0")
    assert lines[3].split()[3:] == ["-", "1.2", "torch", "is", "not", "installed"]
    assert lines[4:] == ["1 of 2 targets reached", "geometric mean of the ratios to peers: 1.581"]


def test_without_a_peer_there_is_no_headline():
    assert shown(result(note="torch is not installed"))[-1].endswith("nothing to take it of")


def test_the_list_names_rows_and_targets_and_measures_nothing():
    done = CliRunner().invoke(command, ["bench", "--list", "--only", "decoding 1,32/8"])
    assert done.output.split(maxsplit=2)[2].strip() == "torch 5 (7), read 0.5 (0.7)"


def test_the_command_says_which_row_is_unknown():
    done = CliRunner().invoke(command, ["bench", "--only", "tinny"])
    assert done.exit_code == 2
    assert done.stderr.startswith("mhakit: only must be part of a row's name, got 'tinny'; ")


def test_the_command_starts_again_where_sides_would_not_run_alike(monkeypatch):
    started = []

    def call(arguments, env):
        started.append((arguments, env))
        return 1

    monkeypatch.setattr(process.subprocess, "call", call)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    options = ["bench", "--only", "tiny", "--only", "odd", "--quick", "--threads", "3"]
    assert CliRunner().invoke(command, options).exit_code == 1
    ((arguments, env),) = started
    assert arguments[1:] == ["-m", "mhakit.cli", "bench", "--only=tiny", "--only=odd", "--threads=3", "--quick"]  # fmt: skip
    assert process.settled(3, env)
    assert not process.settled(2, env)
    assert not process.settled(3, env | {"OPENBLAS_THREAD_TIMEOUT": "26"})


def test_figures_that_could_not_be_written_are_told_before_anything_is_measured(tmp_path):
    with pytest.raises(ParameterError, match=r"json must name a file in a directory that exists, got .*make the directory, or write to - for stdout"):  # fmt: skip
        report.run(ROWS, file=str(tmp_path / "none" / "figures.json"))


def test_a_row_is_measured_and_its_figures_are_json(tmp_path):
    """In a process of its own, as a user starts it; where torch is missing, it says so."""
    done = subprocess.run(
        [sys.executable, "-m", "mhakit.cli", "bench", "--quick", "--only=combine average", "--only=tiny 1,8*", "--threads=1", "--json=-"],
        capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert set(told) == {"machine", "quick", "rows", "geometric_mean"}
    machine = told["machine"]
    assert machine["threads"] == 1
    assert machine["versions"]["mhakit"] == mhakit.__version__
    assert machine["matmul_gflops"] > 0
    assert machine["read_gb_per_second"] > 0
    tiny, average = told["rows"]
    assert set(average) == {"family", "shape", "against", "target", "stretch", "at_most", "measured", "low", "high", "seconds", "peer_seconds", "turns", "note", "wrong", "met"}  # fmt: skip
    assert average["low"] <= average["measured"] <= average["high"]
    assert min(average["seconds"], average["peer_seconds"]) > 0
    assert average["turns"] >= QUICK.repeats
    assert tiny["against"] == "torch"
    assert (tiny["measured"] is None) == (tiny["note"] == "torch is not installed")
