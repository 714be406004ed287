"""One entry point -> the combinations it registers, or the reason why it is left out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import pluggy

from mhakit.errors import PluginError
from mhakit.plugin_api import ENTRY_POINT_GROUP, HeadCombination, Hooks

__all__ = ["Plugin", "cause_of", "check_class", "check_options", "plugins", "register"]

HOOK = "mhakit_register_combinations"


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


def register(found: Plugin) -> list[type[HeadCombination]]:
    """Load one plugin, check its hooks, and return the classes it registers."""
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(Hooks)
    plugin = found.entry.load()
    try:
        manager.register(plugin, name=found.entry.name)
    except pluggy.PluginValidationError as error:
        told = " ".join(str(error).split())
        raise PluginError(f"{HOOK} must take the one argument register; {told}") from error
    hooks = manager.get_hookcallers(plugin) or []
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = ", ".join(hook.name for hook in hooks if not hook.has_spec())
        raise PluginError(f"its hook must be named {HOOK}, got {unknown}") from error
    if not hooks:
        raise PluginError(f"it must have a function {HOOK}(register) marked @hookimpl, got none")

    classes: list[type[HeadCombination]] = []
    manager.hook.mhakit_register_combinations(register=classes.append)
    if not classes:
        raise PluginError("it must register a combination, got none; its hook must call register")
    by_name: dict[str, type[HeadCombination]] = {}
    for cls in classes:
        check_class(cls)
        check_options(cls)
        if by_name.setdefault(cls.name, cls) is not cls:
            raise PluginError(f"it must register {cls.name!r} once, got two classes of that name")
    return list(by_name.values())


def check_class(cls: object) -> None:
    """Raise PluginError unless ``cls`` keeps the rules of `mhakit.plugin_api`."""
    if not isinstance(cls, type) or not issubclass(cls, HeadCombination):
        raise PluginError(f"a combination must be a subclass of HeadCombination, got {cls!r}")
    for attribute in ("name", "reference"):
        text = getattr(cls, attribute, None)
        if not isinstance(text, str) or not text:
            raise PluginError(
                f"combination {cls.__qualname__} must have the class attribute {attribute}, "
                f"a string that is not empty, got {text!r}"
            )
    if cls.plan is HeadCombination.plan and cls.forward is HeadCombination.forward:
        raise PluginError(f"combination {cls.name!r} must define plan or forward, got neither")


@cache
def check_options(cls: type[HeadCombination]) -> None:
    """Raise PluginError unless ``cls()`` can be called; options have defaults."""
    if inspect.isabstract(cls):
        raise PluginError(
            f"combination {cls.name!r} must define {', '.join(sorted(cls.__abstractmethods__))}, "
            "got an abstract class"
        )
    options = inspect.signature(cls).parameters.values()
    required = [
        option.name
        for option in options
        if option.default is option.empty
        and option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
    ]
    if required:
        raise PluginError(
            f"combination {cls.name!r} must have a default for every constructor argument, "
            f"got none for {', '.join(required)}"
        )


def cause_of(error: BaseException) -> str:
    """Return an error in one line, with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
