"""Combinations asked for by name, with arrays like those of an earlier call.

What a combination says of sizes, and what was found right of arrays by their shapes and dtypes,
holds for all such calls: they differ in numbers alone. To look at it again took a tenth of a call
of 512 words, as the product before it leaves none of this in a cache.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from mhakit.api.asking import Question, question_of
from mhakit.plugin_api import HeadCombination

__all__ = ["asked_before", "kind_of_call", "remember"]

MOST = 1024
"""Kinds of calls that are remembered; with one more, all are forgotten."""


class _Known(NamedTuple):
    names: tuple[str, ...]
    """of the parameters, in the combination's order"""
    model_width: int | None


_known: dict[Hashable, _Known] = {}


def kind_of_call(
    strategy: HeadCombination, heads: Any, parameters: Any, hidden_states: Any
) -> Hashable:
    """Return what calls have in common that need one check, or None where each needs its own.

    ``strategy`` was built for this call, as its class builds it.
    """
    if type(heads) is not np.ndarray or heads.ndim != 4 or type(parameters) is not dict:
        return None
    kind = [type(strategy), heads.shape, heads.dtype]
    for name, array in parameters.items():
        if type(array) is not np.ndarray:
            return None
        kind += (name, array.shape, array.dtype)
    if hidden_states is not None:
        if type(hidden_states) is not np.ndarray:
            return None
        kind += (hidden_states.shape, hidden_states.dtype)
    return tuple(kind)


def remember(kind: Hashable, question: Question) -> None:
    """Keep that a call of a kind was found right."""
    if len(_known) >= MOST:
        _known.clear()
    _known[kind] = _Known(tuple(question.parameters), question.model_width)


def asked_before(
    kind: Hashable, strategy: HeadCombination, heads: Any, parameters: Any, hidden_states: Any
) -> Question | None:
    """Return the question of a call like one that was found right, or None."""
    known = _known.get(kind)
    if known is None:
        return None
    learned = {name: parameters[name] for name in known.names}
    return question_of(strategy, heads, learned, hidden_states, known.model_width)
