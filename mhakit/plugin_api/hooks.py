"""The hooks of a plugin module, and what each of them is handed."""

from __future__ import annotations

from typing import Protocol

import pluggy

from mhakit.plugin_api.combination import HeadCombination
from mhakit.plugin_api.mixing import HeadMixing
from mhakit.plugin_api.score_mod import ScoreModFactory

__all__ = [
    "ENTRY_POINT_GROUP",
    "Hooks",
    "Register",
    "RegisterMixing",
    "RegisterScoreMod",
    "hookimpl",
    "hookspec",
]

ENTRY_POINT_GROUP = "mhakit"
"""The entry point group, and the pluggy project name, that plugins are found under."""

hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)
"""Marks a plugin's hook, such as ``mhakit_register_combinations(register)``."""


class Register(Protocol):
    """What the hook of combinations gets: call it once for each class."""

    def __call__(self, combination: type[HeadCombination]) -> None:
        """Register one class under its ``name``."""


class RegisterScoreMod(Protocol):
    """What the hook of score mods gets: call it once for each name."""

    def __call__(self, name: str, factory: ScoreModFactory, *, reference: str) -> None:
        """Register a `ScoreModFactory` under a name, with the paper it is from."""


class RegisterMixing(Protocol):
    """What the hook of mixings gets: call it once for each class."""

    def __call__(self, mixing: type[HeadMixing]) -> None:
        """Register one class under its ``name``."""


class Hooks:
    """The hooks a plugin module may implement, one of them at least."""

    @hookspec
    def mhakit_register_combinations(self, register: Register) -> None:
        """Call ``register(cls)`` for each `HeadCombination` subclass the module offers."""

    @hookspec
    def mhakit_register_score_mods(self, register: RegisterScoreMod) -> None:
        """Call ``register(name, factory, reference=…)`` for each score mod the module offers."""

    @hookspec
    def mhakit_register_mixings(self, register: RegisterMixing) -> None:
        """Call ``register(cls)`` for each `HeadMixing` subclass the module offers."""
