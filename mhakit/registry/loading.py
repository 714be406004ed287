"""One entry point -> what it registers, or the reason why it is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pluggy

from mhakit.errors import PluginError
from mhakit.plugin_api import ENTRY_POINT_GROUP, Hooks

__all__ = ["Kind", "Offer", "Plugin", "cause_of", "plugins", "register"]

HOOKS = "mhakit_register_combinations, mhakit_register_score_mods or mhakit_register_mixings"


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing that a plugin registers under a name: a class, or the factory of a score mod."""

    name: str
    reference: str
    thing: Any

    @property
    def label(self) -> str:
        """What the thing is called in its module."""
        return str(getattr(self.thing, "__qualname__", repr(self.thing)))


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be registered: combinations, score mods, mixings."""

    noun: str
    things: str
    """what one registers, in the plural"""
    hook: str
    offer: Callable[..., Offer]
    """checks the arguments of ``register`` and returns the offer, or raises PluginError"""
    missing: type[PluginError]
    """raised for a name that nobody registered"""
    way_out: str
    """how to do without the name"""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of one distribution."""

    distribution: str
    version: str
    entry: metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} (entry point {self.entry.name!r})"


def plugins() -> Iterator[Plugin | str]:
    """Yield each entry point of the group once, or in words what cannot be read.

    A distribution that lies on sys.path twice, editable and as a wheel, counts once: the first,
    as imports have it.
    """
    seen: set[str] = set()
    for distribution in metadata.distributions():
        # cheap, and an unrelated distribution that is half removed is none of our business
        if f"[{ENTRY_POINT_GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            continue
        name = "a distribution without a name"
        try:
            name = distribution.metadata["Name"] or name
            version = distribution.metadata["Version"] or "of no version"
            entries = [e for e in distribution.entry_points if e.group == ENTRY_POINT_GROUP]
        except Exception as error:
            yield f"{name}: its entry points cannot be read: {cause_of(error)}"
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        for entry in entries:
            yield Plugin(name, version, entry)


def register(found: Plugin, kinds: Sequence[Kind]) -> list[tuple[Kind, Offer]]:
    """Load one plugin, check its hooks, and return what it registers of each kind."""
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(Hooks)
    plugin = found.entry.load()
    try:
        manager.register(plugin, name=found.entry.name)
    except pluggy.PluginValidationError as error:
        told = " ".join(str(error).split())
        raise PluginError(f"its hook must take the one argument register; {told}") from error
    hooks = manager.get_hookcallers(plugin) or []
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = ", ".join(hook.name for hook in hooks if not hook.has_spec())
        raise PluginError(f"its hook must be named {HOOKS}, got {unknown}") from error
    if not hooks:
        raise PluginError(f"it must have a function marked @hookimpl, {HOOKS}, got none")

    offers: dict[tuple[str, str], tuple[Kind, Offer]] = {}
    for kind in kinds:

        def take(*args: Any, _kind: Kind = kind, **keywords: Any) -> None:
            offer = _kind.offer(*args, **keywords)
            first = offers.setdefault((_kind.noun, offer.name), (_kind, offer))[1]
            if first.thing is not offer.thing:
                raise PluginError(
                    f"it must register {offer.name!r} once, got two {_kind.things} of that name"
                )

        getattr(manager.hook, kind.hook)(register=take)
    if not offers:
        raise PluginError("it must register something, got nothing; its hook must call register")
    return list(offers.values())


def cause_of(error: BaseException) -> str:
    """Return an error in one line, with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
