"""A registry that has asked nobody yet, and a shelf for distributions."""

from __future__ import annotations

import sys

import pytest

from material.distributions import Shelf
from mhakit import registry


@pytest.fixture(autouse=True)
def fresh_registry():
    registry.reset()
    yield
    registry.reset()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)
