"""Plugins as users have them: installed by pip, used from a fresh process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from material.places import ROOT
from mhakit.testing import LAWS

PLUGINS = ROOT / "plugins"
USE_PEAK = """
import numpy as np, mhakit
heads = np.array([[[[1.0, -2.0]], [[-3.0, 2.0]]]], np.float32)
learned = {"weight": np.eye(2, 3), "bias": np.ones(3)}
print(mhakit.combine(heads, "peak", learned).tolist())
print([(r.name, r.distribution, r.version) for r in mhakit.combinations()])
print(mhakit.MultiHeadAttention(4, 2, combine="peak", rng=0))
"""
RUN_BENCHMARKS = """
from benchmarks import bench_combine
bench = bench_combine.Combine()
bench.setup("peak", "mhakit")
bench.time_combine("peak", "mhakit")
print("Combine")
bench = bench_combine.Gradient()
bench.setup("peak")
bench.time_combine_vjp("peak")
print("Gradient")
"""


def run(arguments, *folders, expect=0):
    """Run a fresh Python with these folders first on its path; return what it printed."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def install(project, target):
    """Let pip build and install a project, from a copy of it, into a folder."""
    source = shutil.copytree(project, target.with_name(f"{target.name}-source"))
    run(
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        + ["--no-deps", "--no-build-isolation", "--target", target, source]
    )
    return target


@pytest.fixture(scope="module")
def peak(tmp_path_factory):
    return install(PLUGINS / "mhakit-peak", tmp_path_factory.mktemp("plugins") / "peak")


def test_an_installed_plugin_is_used_by_name_from_a_fresh_process(peak):
    combined, records, layer = run(["-c", USE_PEAK], peak).strip().splitlines()
    assert combined == "[[[-2.0, -1.0, 1.0]]]"
    assert "('peak', 'mhakit-peak', '0.1.0')" in records
    assert "('concat_project', 'mhakit', " in records
    assert "combine='peak'" in layer


def test_a_plugin_that_is_not_installed_is_not_known():
    told = run(["-c", USE_PEAK], expect=1)
    assert "CombinationNotFound: combination must be an installed name, got 'peak'" in told


@pytest.fixture(params=["mhakit-peak", "mhakit-dcmha", "new-plugin"])
def project(request, tmp_path):
    """Each distribution here, and the one that `mhakit new-plugin` writes."""
    if request.param != "new-plugin":
        return PLUGINS / request.param
    run(["-m", "mhakit.cli", "new-plugin", "mhakit-loud", "--directory", tmp_path])
    return tmp_path / "mhakit-loud"


def test_a_plugin_passes_its_own_tests(project, tmp_path):
    folder = install(project, tmp_path / "installed")
    tests = shutil.copytree(project / "tests", tmp_path / "tests")
    told = run(
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", tests], folder
    )
    assert re.search(r"^\d+ passed", told, re.MULTILINE)


def test_the_benchmarks_of_a_plugin_run(peak):
    told = run(["-c", RUN_BENCHMARKS], peak, PLUGINS / "mhakit-peak")
    assert told.split() == ["Combine", "Gradient"]


def test_two_installed_plugins_of_one_name_are_both_named_and_the_rest_works(peak, tmp_path):
    rival = shutil.copytree(PLUGINS / "mhakit-peak", tmp_path / "rival")
    project = rival / "pyproject.toml"
    project.write_text(project.read_text().replace('name = "mhakit-peak"', 'name = "rival"'))
    folder = install(rival, tmp_path / "installed")
    told = run(["-c", USE_PEAK], peak, folder, expect=1)
    assert "MhakitWarning: combination 'peak' is registered by Peak of mhakit-peak 0.1.0" in told
    assert "PluginError: combination 'peak' must be registered once" in told
    assert "Peak of rival 0.1.0" in told
    use = "import mhakit; print(mhakit.MultiHeadAttention(4, 2, combine='concat_project'))"
    assert "MultiHeadAttention(model_width=4" in run(["-W", "ignore", "-c", use], peak, folder)


def test_one_plugin_installed_in_two_places_is_no_conflict(peak, tmp_path):
    copy = shutil.copytree(peak, tmp_path / "copy")
    assert "[[[-2.0, -1.0, 1.0]]]" in run(["-W", "error", "-c", USE_PEAK], peak, copy)


def test_a_broken_plugin_does_not_take_the_installed_ones_with_it(peak, tmp_path):
    broken = shutil.copytree(PLUGINS / "mhakit-peak", tmp_path / "broken")
    for path, old, new in (
        ("pyproject.toml", 'name = "mhakit-peak"', 'name = "mhakit-crack"'),
        ("pyproject.toml", "mhakit_peak", "mhakit_crack"),
        ("src/mhakit_peak/__init__.py", "import numpy as np", "import numpyy as np"),
    ):
        text = (broken / path).read_text()
        (broken / path).write_text(text.replace(old, new))
    (broken / "src/mhakit_peak").rename(broken / "src/mhakit_crack")
    folder = install(broken, tmp_path / "installed")
    told = run(["-c", USE_PEAK], peak, folder)
    assert "plugin left out: mhakit-crack 0.1.0 (entry point 'peak'): ModuleNotFoundError" in told
    assert "[[[-2.0, -1.0, 1.0]]]" in told


def test_a_process_that_sees_no_installed_mhakit_is_told_to_install_it():
    told = run(["-c", "import sys, mhakit.api\nsys.path.clear()\nmhakit.combinations()"], expect=1)
    assert "PluginError: mhakit must be installed for its combinations to be found" in told
    assert "`pip install -e .`" in told


def test_the_plugin_of_the_readme_works_as_written(tmp_path):
    text = (PLUGINS / "README.md").read_text()
    module, use, gate, kit, score_mod = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    use += "print([record.name for record in mhakit.combinations()])\n"
    use += "print([m.name for m in mhakit.score_mods() if m.reference == 'an example'])\n"
    use += "from mhakit_loudness import *\n" + gate + kit + "print('kept')"
    (project,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "mhakit_loudness.py").write_text(module + score_mod)
    (tmp_path / "plugin" / "pyproject.toml").write_text(project)
    folder = install(tmp_path / "plugin", tmp_path / "installed")
    shape, gains, found, mods, kept = run(["-W", "error", "-c", use], folder).strip().splitlines()
    assert (shape, gains) == ("(1, 3, 16)", "(4,)")
    assert "'loudness'" in found
    assert mods == "['distance_penalty']"
    assert kept == "kept"


def test_the_readme_says_of_each_law_what_the_kit_says():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (PLUGINS / "README.md").read_text(), re.MULTILINE)
    assert [(name, words) for name, words in rows if name in LAWS] == list(LAWS.items())
