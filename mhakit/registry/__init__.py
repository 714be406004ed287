"""Entry points -> head combinations; every error about plugins as such is raised here.

Each plugin is loaded, checked and asked for its combinations alone, in a plugin manager of its
own: one that fails, at whatever point, registers nothing and takes no other with it. The hooks
run once, when the registry is first needed, never in a forward pass.
"""

from __future__ import annotations

import difflib
import threading
import warnings
from dataclasses import dataclass, field

from mhakit.errors import (
    CombinationNotFound,
    MhakitError,
    MhakitWarning,
    ParameterError,
    PluginError,
)
from mhakit.plugin_api import ENTRY_POINT_GROUP, HeadCombination
from mhakit.registry.loading import (
    Plugin,
    cause_of,
    check_class,
    check_options,
    plugins,
    register,
)

__all__ = ["InstalledCombination", "find", "installed", "reset", "resolve"]

OWN_DISTRIBUTION = "mhakit"
INSTALL = "run `pip install -e .` in its checkout"


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

    Examples
    --------
    >>> [record.reference for record in installed() if record.name == "average"]
    ['arXiv:1710.10903']
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
        check_class(type(combination))
        return combination
    if isinstance(combination, str):
        cls = find(combination)
    elif isinstance(combination, type):
        cls = combination
        check_class(cls)
        check_options(cls)
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
            f"combination {cls.name!r} must be built by {cls.__qualname__}(), got {cause_of(error)}"
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
    claims: dict[str, list[tuple[Plugin, type[HeadCombination]]]] = {}
    count = 0
    for found in plugins():
        count += 1
        if isinstance(found, str):
            registry.left_out.append(found)
            continue
        registry.own |= found.distribution == OWN_DISTRIBUTION
        try:
            classes = register(found)
        # a plugin may raise anything at all, and sys.exit() must not end its host
        except (Exception, SystemExit) as error:
            cause = str(error) if isinstance(error, PluginError) else cause_of(error)
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
        # a name of our own stays ours: a stranger who takes it too must not break every layer
        ours = [claim for claim in claimed if claim[0].distribution == OWN_DISTRIBUTION]
        plugin, cls = (ours or claimed)[0]
        # one distribution may name one class twice; two distributions may not, whichever class
        disputed = len({(party.distribution, cls) for party, cls in claimed}) > 1
        if disputed and ours:
            others = " and ".join(
                f"{other.__qualname__} of {party}" for party, other in claimed if party != plugin
            )
            registry.left_out.append(f"{others}: its name {name!r} is one of mhakit's own")
            complaints.append(f"combination left out: {registry.left_out[-1]}; rename it")
        elif disputed:
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
