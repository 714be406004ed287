"""The hooks of a plugin module, and what each of them is handed."""

from __future__ import annotations

from typing import Protocol

import pluggy

from mhakit.plugin_api.combination import HeadCombination

__all__ = ["ENTRY_POINT_GROUP", "Hooks", "Register", "hookimpl", "hookspec"]

ENTRY_POINT_GROUP = "mhakit"
"""The entry point group, and the pluggy project name, that plugins are found under."""

hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)
"""Marks a plugin's hook, such as ``mhakit_register_combinations(register)``."""


class Register(Protocol):
    """What the hook of combinations gets: call it once for each class."""

    def __call__(self, combination: type[HeadCombination]) -> None:
        """Register one class under its ``name``."""


class Hooks:
    """The hooks a plugin module may implement, one of them at least."""

    @hookspec
    def mhakit_register_combinations(self, register: Register) -> None:
        """Call ``register(cls)`` for each `HeadCombination` subclass the module offers."""
