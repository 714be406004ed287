"""Combinations and mixings: what is installed, and what a name, a class or an object stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mhakit.errors import MhakitError, ParameterError, PluginError
from mhakit.plugin_api import HeadCombination, HeadMixing
from mhakit.registry import names
from mhakit.registry.loading import Kind, cause_of
from mhakit.registry.offers import COMBINATION, MIXING, check_class, check_options

__all__ = [
    "InstalledCombination",
    "InstalledMixing",
    "find",
    "find_mixing",
    "installed",
    "installed_mixings",
    "resolve",
    "resolve_mixing",
]


@dataclass(frozen=True, slots=True, repr=False)
class InstalledStrategy:
    """One class that can be asked for by name, and where it came from.

    Parameters
    ----------
    name : str
        What users pass as ``combine=`` or as ``mixing``.
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
    cls: type[Any]

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {self.module}.{self.cls.__qualname__} "
            f"of {self.distribution} {self.version}, {self.reference}>"
        )


@dataclass(frozen=True, slots=True, repr=False)
class InstalledCombination(InstalledStrategy):
    """One combination that can be asked for by name, and where it came from.

    Examples
    --------
    >>> [record.reference for record in installed() if record.name == "average"]
    ['arXiv:1710.10903']
    """

    cls: type[HeadCombination]


@dataclass(frozen=True, slots=True, repr=False)
class InstalledMixing(InstalledStrategy):
    """One mixing that can be asked for by name, and where it came from.

    Examples
    --------
    >>> [record.reference for record in installed_mixings() if record.name == "talking_heads"]
    ['arXiv:2003.02436']
    """

    cls: type[HeadMixing]


def find(name: str) -> type[HeadCombination]:
    """Return the combination that is installed under this name.

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
    cls: type[HeadCombination] = names.find(COMBINATION, name).offer.thing
    return cls


def find_mixing(name: str) -> type[HeadMixing]:
    """Return the mixing that is installed under this name, or raise as `find` does.

    Examples
    --------
    >>> find_mixing("talking_heads").reference
    'arXiv:2003.02436'
    """
    cls: type[HeadMixing] = names.find(MIXING, name).offer.thing
    return cls


def installed() -> tuple[InstalledCombination, ...]:
    """Return all combinations that can be asked for by name, in alphabetical order.

    Raises
    ------
    PluginError
        If mhakit was never installed, so that there is none.

    Examples
    --------
    >>> "average" in [record.name for record in installed() if record.distribution == "mhakit"]
    True
    """
    return tuple(InstalledCombination(*fields) for fields in _records(COMBINATION))


def installed_mixings() -> tuple[InstalledMixing, ...]:
    """Return all mixings that can be asked for by name, in alphabetical order.

    Examples
    --------
    >>> [record.name for record in installed_mixings() if record.distribution == "mhakit"]
    ['talking_heads']
    """
    return tuple(InstalledMixing(*fields) for fields in _records(MIXING))


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
    made: HeadCombination = _resolve(combination, COMBINATION, HeadCombination)
    return made


def resolve_mixing(mixing: object) -> HeadMixing:
    """Return the mixing that a name, a class or an instance stands for, as `resolve` does.

    Examples
    --------
    >>> resolve_mixing("talking_heads").name
    'talking_heads'
    """
    made: HeadMixing = _resolve(mixing, MIXING, HeadMixing)
    return made


def _records(kind: Kind) -> list[tuple[Any, ...]]:
    return [
        (
            claim.offer.name,
            claim.offer.reference,
            claim.plugin.distribution,
            claim.plugin.version,
            claim.offer.thing.__module__,
            claim.offer.thing,
        )
        for claim in names.installed(kind)
    ]


_kept: set[type[Any]] = set()
"""Classes of objects that were found to keep the rules."""


def _resolve(given: object, kind: Kind, base: type[Any]) -> Any:
    if isinstance(given, str):
        cls = names.find(kind, given).offer.thing
    elif isinstance(given, base):
        if type(given) not in _kept:  # in each forward pass the same few classes
            check_class(type(given), kind.noun)
            _kept.add(type(given))
        return given
    elif isinstance(given, type):
        check_class(given, kind.noun)
        check_options(given, kind.noun)
        cls = given
    else:
        raise ParameterError(
            f"{kind.noun} must be an installed name, a {base.__name__} class or an object of one, "
            f"got {given!r}"
        )
    try:
        return cls()
    except MhakitError:
        raise
    except Exception as error:
        raise PluginError(
            f"{kind.noun} {cls.name!r} must be built by {cls.__qualname__}(), got {cause_of(error)}"
        ) from error
