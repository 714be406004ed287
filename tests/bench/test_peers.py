"""Peers of `mhakit bench` that are missing, or would be imported too late."""

import sys

import pytest

from material.rows import SMALL
from mhakit.bench import contest
from mhakit.bench.measuring import measure
from mhakit.bench.rows import Goal, Row
from mhakit.bench.timing import QUICK


@pytest.mark.parametrize("module", ["torch", "onnxruntime", "onnx"])
def test_a_peer_that_is_not_installed_is_told(module, monkeypatch):
    found = contest.find_spec
    monkeypatch.setattr(
        contest, "find_spec", lambda name: None if name == module else found("json")
    )
    peer = "torch" if module == "torch" else "onnxruntime"
    (told,) = measure(Row("dense", SMALL, (Goal(peer, 1.0),)), QUICK)
    assert told.note == f"{module} is not installed"
    assert (told.measured, told.met, told.wrong) == (None, None, False)


def test_torch_is_refused_after_numbas_openmp_threads(monkeypatch):
    monkeypatch.setattr(contest, "find_spec", lambda name: object())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.omppool", object())
    with pytest.raises(AssertionError, match="torch must be imported before Numba's threads start"):
        contest.need("torch")
