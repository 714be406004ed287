"""asv on a fresh clone: the machine is named, environments exist, the history is laid out."""

import json
import os
import platform
import subprocess
import sys

import pytest

from material.places import ROOT

pytest.importorskip("asv", reason="asv comes with the extra bench")

from mhakit.backends.cpu.simd import VECTOR_BYTES

SETUP = "import mhakit.testing.environments as all; all.setup()"


def in_a_home(home, code):
    """Run code in a process whose home is empty, as asv would load it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}"],
        env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_machine_that_nobody_described_is_named_by_what_it_is_not_by_its_host(tmp_path):
    in_a_home(tmp_path, SETUP)
    told = json.loads((tmp_path / ".asv-machine.json").read_text())
    (name,) = told.keys() - {"version"}
    assert name.endswith(f"-{os.cpu_count()}-cores-{8 * VECTOR_BYTES}-bit")
    assert told[name]["machine"] == name != platform.node()
    assert in_a_home(
        tmp_path,
        f"{SETUP}; from asv.machine import Machine; print(Machine.load().machine)",
    ) == name  # fmt: skip


def test_a_machine_that_was_described_stays_as_it_is(tmp_path):
    file = tmp_path / ".asv-machine.json"
    file.write_text(json.dumps({"mine": {"machine": "mine"}, "version": 1}))
    before = file.read_text()
    in_a_home(tmp_path, SETUP)
    assert file.read_text() == before


CONF = (
    "from types import SimpleNamespace; from asv.config import Config; "
    "import asv_environments as ours; conf = Config.from_json({'repo': '.'}); "
)


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ("", "EnvironmentUnavailable no peer is installed, so ratios to peers are left out"),
        ("torch 9", "beside-py3."),
    ],
)
def test_the_environment_of_the_peers_is_there_where_there_are_peers(tmp_path, peers, expected):
    said = in_a_home(
        tmp_path,
        f"{CONF} import mhakit.testing.environments as all\n"
        f"ours.peers = all.peers = lambda: {peers!r}\n"
        "try: print(ours.WithPeers(conf, 'same', {}, {}).name)\n"
        "except BaseException as error: print(type(error).__name__, error)",
    )
    assert said.startswith(expected)


def test_a_python_that_is_found_and_does_not_run_is_left_out(tmp_path):
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    said = in_a_home(
        tmp_path,
        f"{CONF} import os\nos.environ['PATH'] = {str(tmp_path)!r}\n"
        "try: ours.WithPeers(conf, '3.12', {}, {})\n"
        "except BaseException as error: print(type(error).__name__, error)",
    )
    assert said == "EnvironmentUnavailable python 3.12 is found, and does not run"


def test_the_history_is_laid_among_the_results_and_replaces_none(tmp_path):
    kept = sorted((ROOT / "asv_benchmarks" / "history").glob("*/*.json"))
    target = tmp_path / "results" / kept[0].relative_to(ROOT / "asv_benchmarks" / "history")
    target.parent.mkdir(parents=True)
    target.write_text("measured here")
    in_a_home(
        tmp_path,
        f"import asv_environments as ours; from pathlib import Path; "
        f"ours.lay_out_history(Path({str(tmp_path / 'results')!r}))",
    )
    assert target.read_text() == "measured here"
    assert len(list((tmp_path / "results").glob("*/*.json"))) == len(kept)
