"""Score modifications by name: what is installed, and the function that a name stands for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mhakit.errors import MhakitError, ParameterError, PluginError
from mhakit.plugin_api import ScoreModFactory
from mhakit.registry import names
from mhakit.registry.loading import cause_of
from mhakit.registry.offers import SCORE_MOD

__all__ = ["InstalledScoreMod", "installed_score_mods", "make_score_mod"]

ScoreMod = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, repr=False)
class InstalledScoreMod:
    """One score modification that can be asked for by name, and where it came from.

    Parameters
    ----------
    name : str
        What users pass as ``score_mod=``.
    reference : str
        The paper it is from.
    distribution, version : str
        The installed distribution that registered it.
    module : str
        The module its factory is defined in.
    factory : callable
        ``(num_heads, dtype, *options) -> (function, score_args)``.
    """

    name: str
    reference: str
    distribution: str
    version: str
    module: str
    factory: ScoreModFactory

    @property
    def options(self) -> str:
        """What may be given as ``score_args`` with the name, as Python writes it.

        Examples
        --------
        >>> [mod.options for mod in installed_score_mods() if mod.name == "alibi"]
        ['slopes=None']
        """
        return _options(self.factory)

    def __repr__(self) -> str:
        return (
            f"<{self.name}({self.options}): {self.module} "
            f"of {self.distribution} {self.version}, {self.reference}>"
        )


def installed_score_mods() -> tuple[InstalledScoreMod, ...]:
    """Return all score modifications that can be asked for by name, in alphabetical order.

    Examples
    --------
    >>> "alibi" in [mod.name for mod in installed_score_mods() if mod.distribution == "mhakit"]
    True
    """
    return tuple(_record(claim) for claim in names.installed(SCORE_MOD))


def make_score_mod(
    name: str, num_heads: int, dtype: np.dtype[Any], options: tuple[Any, ...]
) -> ScoreMod:
    """Return the function and its ``score_args`` that a name stands for, for H heads.

    Parameters
    ----------
    name : str
        As a plugin registered it.
    num_heads : int
        H.
    dtype : numpy.dtype
        The computation dtype, float32 or float64.
    options : tuple
        What the caller gave as ``score_args``, handed on to the factory.

    Returns
    -------
    function, score_args
        The same objects for the same numbers as options, so that nothing is compiled twice.

    Raises
    ------
    ScoreModNotFound
        If no plugin offers it.
    ParameterError
        If the factory takes other options.
    PluginError
        If two plugins offer it, or its factory breaks the rules of `mhakit.plugin_api`.

    Examples
    --------
    >>> function, score_args = make_score_mod("softcap", 4, np.dtype(np.float32), (30.0,))
    >>> score_args
    (np.float32(30.0),)
    """
    factory = names.find(SCORE_MOD, name).offer.thing
    try:
        hash(options)
    except TypeError:  # arrays among them
        return _make(name, factory, num_heads, dtype, options)
    return _made(name, factory, num_heads, dtype, options)


def _options(factory: ScoreModFactory) -> str:
    parameters = list(inspect.signature(factory).parameters.values())[2:]
    return ", ".join(str(parameter.replace(annotation=parameter.empty)) for parameter in parameters)


def _record(claim: names.Claim) -> InstalledScoreMod:
    offer, plugin = claim.offer, claim.plugin
    module = getattr(offer.thing, "__module__", None) or plugin.entry.module
    return InstalledScoreMod(
        offer.name, offer.reference, plugin.distribution, plugin.version, module, offer.thing
    )


def _make(
    name: str,
    factory: ScoreModFactory,
    num_heads: int,
    dtype: np.dtype[Any],
    options: tuple[Any, ...],
) -> ScoreMod:
    try:
        inspect.signature(factory).bind(num_heads, dtype, *options)
    except TypeError as error:
        raise ParameterError(
            f"score_args of {name!r} must be ({_options(factory)}), got {len(options)} of them"
        ) from error
    try:
        made: Any = factory(num_heads, dtype, *options)
    except MhakitError:
        raise
    except Exception as error:
        raise PluginError(
            f"score mod {name!r} must be made without an error, got {cause_of(error)}"
        ) from error
    if (
        not isinstance(made, tuple)
        or len(made) != 2
        or not callable(made[0])
        or not isinstance(made[1], tuple)
    ):
        raise PluginError(
            f"score mod {name!r} must be made as (function, score_args), a tuple of a function and "
            f"a tuple, got {made!r}"
        )
    return made


_made = lru_cache(maxsize=256)(_make)
