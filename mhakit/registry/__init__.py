"""Entry points -> what plugins register; every error about plugins as such is raised here.

Each plugin is loaded, checked and asked alone, in a plugin manager of its own: one that fails, at
whatever point, registers nothing and takes no other with it. The hooks run once, when the registry
is first needed, never in a forward pass.
"""

from mhakit.registry.names import reset
from mhakit.registry.score_mods import InstalledScoreMod, installed_score_mods, make_score_mod
from mhakit.registry.strategies import (
    InstalledCombination,
    InstalledMixing,
    find,
    find_mixing,
    installed,
    installed_mixings,
    resolve,
    resolve_mixing,
)

__all__ = [
    "InstalledCombination",
    "InstalledMixing",
    "InstalledScoreMod",
    "find",
    "find_mixing",
    "installed",
    "installed_mixings",
    "installed_score_mods",
    "make_score_mod",
    "reset",
    "resolve",
    "resolve_mixing",
]
