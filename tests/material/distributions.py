"""Distributions with plugins, put on ``sys.path`` by a test, and who sees them."""

from __future__ import annotations

from importlib import metadata

import numpy as np

from mhakit import registry
from mhakit.plugin_api import CombinationPlan, HeadCombination

FLOAT32 = np.dtype(np.float32)
HEADER = """
from abc import abstractmethod
from mhakit.plugin_api import CombinationPlan, HeadCombination, HeadMixing, hookimpl

class Good(HeadCombination):
    name = "good"
    reference = "a test"

    def plan(self, heads, parameters, **_):
        return CombinationPlan(groups=1)

class Other(Good):
    name = "other"

class Swap(HeadMixing):
    name = "swap"
    reference = "a test"

    def mix_weights(self, weights, parameters, **_):
        return weights[:, ::-1]

def half(score, b, h, t, s, divisor):
    return score / divisor

def halving(num_heads, dtype, divisor=2.0):
    return half, (dtype.type(divisor),)

"""
REGISTER_GOOD = """
@hookimpl
def mhakit_register_combinations(register):
    register(Good)
"""
SCORE_MOD = """
@hookimpl
def mhakit_register_score_mods(register):
    register('halve', halving, reference='a test')
"""
MIXING = """
@hookimpl
def mhakit_register_mixings(register):
    register(Swap)
"""


class Unregistered(HeadCombination):
    name = "unregistered"
    reference = "a test"

    def plan(self, heads, parameters, **_):
        return CombinationPlan(groups=1)


class Shelf:
    """A folder on sys.path that distributions are put into."""

    def __init__(self, path):
        self.path = path
        self.modules = []

    def put(self, distribution, source, *, entries=None, module=None, version="1.2"):
        module = module or distribution.replace("-", "_").lower()
        lines = entries or [f"{module} = {module}"]
        info = self.path / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text("\n".join(["[mhakit]", *lines]) + "\n")
        (self.path / f"{module}.py").write_text(HEADER + source)
        self.modules.append(module)


def only(monkeypatch, *paths):
    """Let the registry see the distributions of these folders alone."""
    everywhere = metadata.distributions
    monkeypatch.setattr(
        metadata, "distributions", lambda: everywhere(path=[str(path) for path in paths])
    )


def names():
    return [record.name for record in registry.installed()]
