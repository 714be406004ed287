"""Choose the backend that computes a call: by name, or by the kind of array that was given.

Every backend is a module with the same verbs: ``attend``, ``score``, ``weigh``, ``normalize``,
``weigh_values``, ``merge``, ``combine_heads``, ``combine_heads_vjp`` and ``describe``. None
imports another.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from mhakit.errors import BackendUnavailable, ParameterError

__all__ = ["BACKENDS", "availability", "select"]

BACKENDS = ("reference", "cpu", "cuda")


def select(name: str | None) -> ModuleType:
    """Return the backend of that name; None is ``cpu``, the one for NumPy arrays."""
    if name is None or name == "cpu":
        return _load("cpu")
    if not isinstance(name, str) or name not in BACKENDS:
        known = ", ".join(repr(known) for known in BACKENDS)
        raise ParameterError(f"backend must be None or one of {known}, got {name!r}")
    if name == "cuda":
        raise BackendUnavailable(
            "backend 'cuda' has no kernels in this version of mhakit; "
            "use backend='cpu' (or None) with NumPy arrays"
        )
    return _load(name)


@cache
def _load(name: str) -> ModuleType:
    return import_module(f"mhakit.backends.{name}")


def availability() -> dict[str, str | None]:
    """Return for each backend None where it can run, or else the reason why it cannot."""
    reasons: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            select(name)
        except (BackendUnavailable, ImportError) as error:
            reasons[name] = str(error)
        else:
            reasons[name] = None
    return reasons
