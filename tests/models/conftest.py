"""The embedded sample, and a checkpoint to be broken."""

from __future__ import annotations

import pytest

from material.checkpoints import tiny
from mhakit import models


@pytest.fixture(scope="module")
def sample():
    return models.load()


@pytest.fixture
def broken(tmp_path):
    """A tiny checkpoint that works, to be broken."""
    return tiny(tmp_path / "tiny")
