"""Names -> what is installed under them, for everything that plugins register.

Built once, by whoever asks first. A name that two distributions claim is refused when it is asked
for; one of mhakit's own stays mhakit's.
"""

from __future__ import annotations

import difflib
import threading
import warnings
from dataclasses import dataclass, field

from mhakit.errors import MhakitWarning, PluginError
from mhakit.plugin_api import ENTRY_POINT_GROUP
from mhakit.registry.loading import Kind, Offer, Plugin, cause_of, plugins, register
from mhakit.registry.offers import KINDS

__all__ = ["Claim", "find", "installed", "reset"]

OWN_DISTRIBUTION = "mhakit"
INSTALL = "run `pip install -e .` in its checkout"


@dataclass(frozen=True, slots=True)
class Claim:
    """An offer, and the plugin that made it."""

    plugin: Plugin
    offer: Offer

    def __str__(self) -> str:
        return f"{self.offer.label} of {self.plugin}"


@dataclass(slots=True)
class _Names:
    """The usable names of one kind, and those that two plugins claim."""

    claims: dict[str, Claim] = field(default_factory=dict)
    disputed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Registry:
    """What was found, by the noun of its kind, and the plugins left out."""

    kinds: dict[str, _Names] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    own: bool = False

    def of(self, kind: Kind) -> _Names:
        names = self.kinds.get(kind.noun)
        return self.kinds.setdefault(kind.noun, _Names()) if names is None else names


_lock = threading.RLock()
_registry: _Registry | None = None
_building = False


def find(kind: Kind, name: str) -> Claim:
    """Return what is installed under a name, or raise ``kind.missing`` or PluginError."""
    registry = _built()
    names = registry.of(kind)
    if name in names.disputed:
        raise PluginError(
            f"{kind.noun} {name!r} must be registered once, got {names.disputed[name]}; "
            f"uninstall one of them, or {kind.way_out}"
        )
    if name in names.claims:
        return names.claims[name]
    raise kind.missing(_not_found(kind, name, registry))


def installed(kind: Kind) -> list[Claim]:
    """Return all of a kind that can be asked for by name, in alphabetical order."""
    claims = _built().of(kind).claims
    return [claims[name] for name in sorted(claims)]


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
                "what is installed must not be asked for while plugins register it; "
                "ask when it is used"
            )
        _building = True
        try:
            registry, complaints = _build()
        finally:
            _building = False
        _registry = registry
    # warned last, so that a warnings filter that raises leaves a whole registry behind
    for complaint in complaints:
        warnings.warn(complaint, MhakitWarning, stacklevel=5)
    return registry


def _build() -> tuple[_Registry, list[str]]:
    """Ask every plugin; return the registry and what there is to warn of."""
    registry = _Registry()
    claims: dict[tuple[str, str], tuple[Kind, list[Claim]]] = {}
    count = 0
    for found in plugins():
        count += 1
        if isinstance(found, str):
            registry.left_out.append(found)
            continue
        registry.own |= found.distribution == OWN_DISTRIBUTION
        try:
            offers = register(found, KINDS)
        # a plugin may raise anything at all, and sys.exit() must not end its host
        except (Exception, SystemExit) as error:
            cause = str(error) if isinstance(error, PluginError) else cause_of(error)
            registry.left_out.append(f"{found}: {cause}")
            continue
        for kind, offer in offers:
            key = (kind.noun, offer.name)
            claims.setdefault(key, (kind, []))[1].append(Claim(found, offer))
    if not count:
        raise PluginError(
            "mhakit must be installed for its combinations to be found, "
            f"got no entry point of the group {ENTRY_POINT_GROUP!r}; {INSTALL}"
        )
    complaints = [f"plugin left out: {left}" for left in registry.left_out]
    for kind, claimed in claims.values():
        _settle(kind, claimed, registry, complaints)
    return registry, complaints


def _settle(kind: Kind, claimed: list[Claim], registry: _Registry, complaints: list[str]) -> None:
    """Give a name to the one who claims it, to mhakit of several, and else to nobody."""
    # a name of our own stays ours: a stranger who takes it too must not break every layer
    ours = [claim for claim in claimed if claim.plugin.distribution == OWN_DISTRIBUTION]
    chosen = (ours or claimed)[0]
    name, names = chosen.offer.name, registry.of(kind)
    # one distribution may name one thing twice; two distributions may not, whichever thing
    parties = {(claim.plugin.distribution, claim.offer.thing) for claim in claimed}
    if len(parties) > 1 and not ours:
        told = " and ".join(map(str, claimed))
        names.disputed[name] = told
        complaints.append(
            f"{kind.noun} {name!r} is registered by {told}: it cannot be asked for by name; "
            "uninstall one of them"
        )
        return
    if len(parties) > 1:
        others = " and ".join(str(claim) for claim in claimed if claim.plugin != chosen.plugin)
        registry.left_out.append(f"{others}: its name {name!r} is one of mhakit's own")
        complaints.append(f"{kind.noun} left out: {registry.left_out[-1]}; rename it")
    names.claims[name] = chosen


def _not_found(kind: Kind, name: str, registry: _Registry) -> str:
    """Say what was asked for, what is nearest, what there is, and what was left out."""
    names = registry.of(kind)
    known = {known.lower(): known for known in (*names.claims, *names.disputed)}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    message = f"{kind.noun} must be an installed name, got {name!r}"
    if near:
        message += f"; did you mean {known[near[0]]!r}?"
    usable = ", ".join(sorted(names.claims)) or "none"
    message += f"{'' if near else ';'} installed: {usable}"
    if not registry.own:
        message += f"; mhakit's own are missing because it was never installed: {INSTALL}"
    if registry.left_out:
        message += "; left out: " + "; ".join(registry.left_out)
    return message
