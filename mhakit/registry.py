"""Entry points -> head combinations; every error about plugins as such is raised here.

Each plugin is loaded, checked and asked for its combinations alone, in a plugin manager of its
own: one that fails, at whatever point, registers nothing and takes no other with it. The hooks
run once, when the registry is first needed, never in a forward pass.
"""

from __future__ import annotations

import difflib
import inspect
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata

import pluggy

from mhakit.errors import (
    CombinationNotFound,
    MhakitError,
    MhakitWarning,
    ParameterError,
    PluginError,
)
from mhakit.plugin_api import ENTRY_POINT_GROUP, CombinationHooks, HeadCombination

__all__ = ["InstalledCombination", "find", "installed", "reset", "resolve"]

HOOK = "mhakit_register_combinations"
OWN_DISTRIBUTION = "mhakit"
INSTALL = "run `pip install -e .` in its checkout, or `pip install mhakit`"


@dataclass(frozen=True, slots=True, repr=False)
class InstalledCombination:
    """One combination that can be asked for by name, and where it came from.

    Parameters
    ----------
    name : str
        What users pass as ``combine=``.
    reference : str
        The paper it is from.
    distribution, version : str
        The installed distribution that registered it.
    module : str
        The module its class is defined in.
    cls : type
        The class itself.
    """

    name: str
    reference: str
    distribution: str
    version: str
    module: str
    cls: type[HeadCombination]

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {self.module}.{self.cls.__qualname__} "
            f"of {self.distribution} {self.version}, {self.reference}>"
        )


@dataclass(frozen=True, slots=True)
class _Plugin:
    """One entry point of one distribution."""

    distribution: str
    version: str
    entry: metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} (entry point {self.entry.name!r})"


@dataclass(slots=True)
class _Registry:
    """What was found: usable combinations, names that two plugins claim, plugins left out."""

    by_name: dict[str, InstalledCombination] = field(default_factory=dict)
    disputed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    own: bool = False


_lock = threading.RLock()
_registry: _Registry | None = None
_building = False


def find(name: str) -> type[HeadCombination]:
    """Return the class that is installed under this name.

    Parameters
    ----------
    name : str
        As a plugin registered it.

    Returns
    -------
    type
        A subclass of `HeadCombination`.

    Raises
    ------
    CombinationNotFound
        If no plugin offers it; the message names the nearest, all that are installed, and the
        plugins that were left out, with the cause.
    PluginError
        If two plugins offer it, or mhakit was never installed.

    Examples
    --------
    >>> find("concat_project").reference
    'arXiv:1706.03762'
    """
    registry = _built()
    if name in registry.disputed:
        raise PluginError(
            f"combination {name!r} must be registered once, got {registry.disputed[name]}; "
            "uninstall one of them, or pass the class itself in place of its name"
        )
    if name in registry.by_name:
        return registry.by_name[name].cls
    raise CombinationNotFound(_not_found(name, registry))


def installed() -> tuple[InstalledCombination, ...]:
    """Return all combinations that can be asked for by name, in alphabetical order.

    Raises
    ------
    PluginError
        If mhakit was never installed, so that there is none.

    Examples
    --------
    >>> [record.name for record in installed() if record.distribution == "mhakit"]
    ['average', 'concat_project']
    """
    by_name = _built().by_name
    return tuple(by_name[name] for name in sorted(by_name))


def resolve(combination: object) -> HeadCombination:
    """Return the combination that a name, a class or an instance stands for.

    Parameters
    ----------
    combination : str, type or HeadCombination
        An installed name; or a subclass of `HeadCombination`, which need not be installed, built
        with its defaults; or an object of one, returned as it is.

    Raises
    ------
    ParameterError
        If it is none of the three.
    PluginError
        If the class breaks the rules of `mhakit.plugin_api`, and as `find` raises.

    Examples
    --------
    >>> resolve("average").name
    'average'
    """
    if isinstance(combination, HeadCombination):
        _check_class(type(combination))
        return combination
    if isinstance(combination, str):
        cls = find(combination)
    elif isinstance(combination, type):
        cls = combination
        _check_class(cls)
        _check_options(cls)
    else:
        raise ParameterError(
            "combination must be an installed name, a HeadCombination class or an object of one, "
            f"got {combination!r}"
        )
    try:
        return cls()
    except MhakitError:
        raise
    except Exception as error:
        raise PluginError(
            f"combination {cls.name!r} must be built by {cls.__qualname__}(), got {_cause(error)}"
        ) from error


def reset() -> None:
    """Forget what was found, so that the next question looks at the installed plugins again.

    Examples
    --------
    >>> reset()
    """
    global _registry
    with _lock:
        _registry = None


def _built() -> _Registry:
    """Return the registry, built by whoever comes first."""
    global _registry, _building
    registry = _registry
    if registry is not None:
        return registry
    with _lock:
        if _registry is not None:
            return _registry
        if _building:  # the same thread again: a plugin asks while it is being asked
            raise PluginError(
                "combinations must not be asked for while plugins register them; "
                "ask when the combination is used"
            )
        _building = True
        try:
            registry, complaints = _build()
        finally:
            _building = False
        _registry = registry
    # warned last, so that a warnings filter that raises leaves a whole registry behind
    for complaint in complaints:
        warnings.warn(complaint, MhakitWarning, stacklevel=4)
    return registry


def _build() -> tuple[_Registry, list[str]]:
    """Ask every plugin; return the registry and what there is to warn of."""
    registry = _Registry()
    claims: dict[str, list[tuple[_Plugin, type[HeadCombination]]]] = {}
    count = 0
    for found in _plugins():
        count += 1
        if isinstance(found, str):
            registry.left_out.append(found)
            continue
        registry.own |= found.distribution == OWN_DISTRIBUTION
        try:
            classes = _register(found)
        # a plugin may raise anything at all, and sys.exit() must not end its host
        except (Exception, SystemExit) as error:
            cause = str(error) if isinstance(error, PluginError) else _cause(error)
            registry.left_out.append(f"{found}: {cause}")
            continue
        for cls in classes:
            claims.setdefault(cls.name, []).append((found, cls))
    if not count:
        raise PluginError(
            "mhakit must be installed for its combinations to be found, "
            f"got no entry point of the group {ENTRY_POINT_GROUP!r}; {INSTALL}"
        )
    complaints = [f"plugin left out: {left}" for left in registry.left_out]
    for name, claimed in claims.items():
        plugin, cls = claimed[0]
        # one distribution may name one class twice; two distributions may not, whichever class
        if len({(party.distribution, cls) for party, cls in claimed}) > 1:
            parties = " and ".join(f"{cls.__qualname__} of {party}" for party, cls in claimed)
            registry.disputed[name] = parties
            complaints.append(
                f"combination {name!r} is registered by {parties}: it cannot be asked for by name; "
                "uninstall one of them"
            )
            continue
        registry.by_name[name] = InstalledCombination(
            name, cls.reference, plugin.distribution, plugin.version, cls.__module__, cls
        )
    return registry, complaints


def _plugins() -> Iterator[_Plugin | str]:
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
            yield f"{name}: its entry points cannot be read: {_cause(error)}"
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        for entry in entries:
            yield _Plugin(name, version, entry)


def _register(found: _Plugin) -> list[type[HeadCombination]]:
    """Load one plugin, check its hooks, and return the classes it registers."""
    manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
    manager.add_hookspecs(CombinationHooks)
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
        _check_class(cls)
        _check_options(cls)
        if by_name.setdefault(cls.name, cls) is not cls:
            raise PluginError(f"it must register {cls.name!r} once, got two classes of that name")
    return list(by_name.values())


def _check_class(cls: object) -> None:
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
def _check_options(cls: type[HeadCombination]) -> None:
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


def _not_found(name: str, registry: _Registry) -> str:
    """Say what was asked for, what is nearest, what there is, and what was left out."""
    known = {known.lower(): known for known in (*registry.by_name, *registry.disputed)}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    message = f"combination must be an installed name, got {name!r}"
    if near:
        message += f"; did you mean {known[near[0]]!r}?"
    names = ", ".join(sorted(registry.by_name)) or "none"
    message += f"{'' if near else ';'} installed: {names}"
    if not registry.own:
        message += f"; mhakit's own are missing because it was never installed: {INSTALL}"
    if registry.left_out:
        message += "; left out: " + "; ".join(registry.left_out)
    return message


def _cause(error: BaseException) -> str:
    """Return an error in one line, with its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
