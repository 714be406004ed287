"""The kinds of things that plugins register, and the rules that each must keep."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from mhakit.errors import CombinationNotFound, MixingNotFound, PluginError, ScoreModNotFound
from mhakit.plugin_api import HeadCombination, HeadMixing
from mhakit.registry.loading import Kind, Offer

__all__ = ["COMBINATION", "KINDS", "MIXING", "SCORE_MOD", "check_class", "check_options"]

Strategy = HeadCombination | HeadMixing

RULES: tuple[tuple[str, type[Strategy], tuple[str, str]], ...] = (
    ("combination", HeadCombination, ("plan", "forward")),
    ("mixing", HeadMixing, ("mix_scores", "mix_weights")),
)
"""The noun, the base class, and the methods of which one must be defined."""


def check_class(cls: object, noun: str = "combination") -> None:
    """Raise PluginError unless ``cls`` keeps the rules of `mhakit.plugin_api` for its kind."""
    base, either = next(rule[1:] for rule in RULES if rule[0] == noun)
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise PluginError(f"a {noun} must be a subclass of {base.__name__}, got {cls!r}")
    for attribute in ("name", "reference"):
        text = getattr(cls, attribute, None)
        if not isinstance(text, str) or not text:
            raise PluginError(
                f"{noun} {cls.__qualname__} must have the class attribute {attribute}, "
                f"a string that is not empty, got {text!r}"
            )
    if all(getattr(cls, method) is getattr(base, method) for method in either):
        raise PluginError(f"{noun} {cls.name!r} must define {' or '.join(either)}, got neither")


@cache
def check_options(cls: type[Strategy], noun: str = "combination") -> None:
    """Raise PluginError unless ``cls()`` can be called; options have defaults."""
    if inspect.isabstract(cls):
        raise PluginError(
            f"{noun} {cls.name!r} must define {', '.join(sorted(cls.__abstractmethods__))}, "
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
            f"{noun} {cls.name!r} must have a default for every constructor argument, "
            f"got none for {', '.join(required)}"
        )


def _offer_combination(combination: Any) -> Offer:
    check_class(combination, "combination")
    check_options(combination, "combination")
    return Offer(combination.name, combination.reference, combination)


def _offer_mixing(mixing: Any) -> Offer:
    check_class(mixing, "mixing")
    check_options(mixing, "mixing")
    return Offer(mixing.name, mixing.reference, mixing)


def _offer_score_mod(name: Any, factory: Any, *, reference: Any) -> Offer:
    for what, text in (("name", name), ("reference", reference)):
        if not isinstance(text, str) or not text:
            raise PluginError(
                f"a score mod's {what} must be a string that is not empty, got {text!r}"
            )
    if not callable(factory):
        raise PluginError(
            f"score mod {name!r} must have a factory (num_heads, dtype, *options) -> "
            f"(function, score_args), got {factory!r}"
        )
    try:
        inspect.signature(factory).bind_partial(1, "float64")
    except TypeError as error:
        raise PluginError(
            f"score mod {name!r} must have a factory that takes (num_heads, dtype, *options), "
            f"got {inspect.signature(factory)}"
        ) from error
    return Offer(name, reference, factory)


COMBINATION = Kind(
    "combination",
    "classes",
    "mhakit_register_combinations",
    _offer_combination,
    CombinationNotFound,
    "pass the class itself in place of its name",
)
SCORE_MOD = Kind(
    "score mod",
    "factories",
    "mhakit_register_score_mods",
    _offer_score_mod,
    ScoreModNotFound,
    "pass the function itself in place of its name",
)
MIXING = Kind(
    "mixing",
    "classes",
    "mhakit_register_mixings",
    _offer_mixing,
    MixingNotFound,
    "pass the class itself in place of its name",
)
KINDS = (COMBINATION, SCORE_MOD, MIXING)
