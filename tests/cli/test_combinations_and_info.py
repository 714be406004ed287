"""`mhakit combinations`, `mhakit info`, the version, and warnings of plugins."""

from __future__ import annotations

import re
import warnings

import numpy as np

import mhakit
from material.command import as_json, line_of, run
from mhakit.errors import MhakitWarning


def test_combinations_are_listed_with_paper_distribution_and_size():
    out, _ = run("combinations")
    assert line_of(out, "average")[:3] == ["average", "arXiv:1710.10903", "mhakit"]
    assert line_of(out, "average")[-1] == "12,672"
    assert line_of(out, "concat_project")[-1] == "147,840"
    smaller, _ = run("combinations", "--model-width", "64", "--num-heads", "4", "--head-width", "8")
    assert line_of(smaller, "concat_project")[-1] == f"{4 * 8 * 64 + 64:,}"


def test_combinations_as_json():
    rows = {row["name"]: row for row in as_json("combinations", "--num-heads", "6")}
    assert rows["average"]["parameters"] == 64 * 384 + 384  # the head's width follows: M / H
    assert rows["average"]["distribution"] == "mhakit"


def test_a_combination_that_these_sizes_do_not_suit_is_listed_with_its_reason(monkeypatch):
    from mhakit.errors import ParameterError
    from mhakit.registry import find

    def never(self, shape):
        raise ParameterError(f"num_heads must be even, got {shape.num_heads}; use one more")

    monkeypatch.setattr(find("average"), "validate", never)
    out, _ = run("combinations", "--num-heads", "3")
    assert line_of(out, "average")[-1] == "-"
    assert "average: num_heads must be even, got 3; use one more" in " ".join(out.split())


def test_info_tells_versions_threads_and_why_a_backend_is_missing():
    told = as_json("info")
    assert told["mhakit"] == mhakit.__version__
    assert told["numpy"] == np.__version__
    assert {"python", "numba", "llvmlite", "threads", "threading_layer"} <= told.keys()
    assert told["vector_bytes"] in (16, 32, 64)
    assert told["backends"]["cpu"] is None
    reason = told["backends"]["cuda"]
    out, _ = run("info", width=200)
    assert "backend cpu        available" in out
    assert reason is None or " ".join(reason.split()) in " ".join(out.split())
    assert f"{told['vector_bytes']} bytes" in out
    assert told["score_mods"]["alibi(slopes=None)"] == f"mhakit {mhakit.__version__}"
    assert re.search(r"^score mods  +alibi\(slopes=None\), distance_decay", out, re.MULTILINE)
    assert re.search(r"^mixings  .*talking_heads", out, re.MULTILINE)


def test_the_version_is_printed():
    assert run("--version")[0] == f"mhakit {mhakit.__version__}\n"


def test_a_warning_of_a_plugin_is_one_line_on_stderr(monkeypatch):
    from mhakit.cli import facts

    def warn(*sizes):
        warnings.warn("plugin left out: stranger 1.0", MhakitWarning, stacklevel=1)
        return []

    monkeypatch.setattr(facts, "combination_rows", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("combinations")[1] == "mhakit: warning: plugin left out: stranger 1.0\n"
