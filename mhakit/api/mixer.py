"""Asking a mixing: what it is handed, and what it may hand back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.api.asking import read_only
from mhakit.api.parameters import Speaking, check_parameters
from mhakit.errors import ParameterError, PluginError
from mhakit.plugin_api import HeadMixing
from mhakit.validation import MixedCall, out_of_memory

__all__ = ["mix", "what_it_reads"]

Array = NDArray[Any]


def what_it_reads(
    strategy: HeadMixing, call: MixedCall, parameters: Mapping[str, Any], real: np.dtype[Any]
) -> dict[str, Any]:
    """Return what both methods are handed beside the array: read-only, in one dtype."""
    _require_states(strategy, call)
    learned = check_parameters(strategy, call.shape, parameters)
    states = {"hidden_states": call.hidden_states, "source_states": call.source_states}
    return {
        "parameters": MappingProxyType({name: read_only(a, real) for name, a in learned.items()}),
        **{
            name: read_only(array, real)
            if array is not None and strategy.uses_hidden_states
            else None
            for name, array in states.items()
        },
    }


def mix(
    method: Callable[..., Any],
    array: Array,
    heads: int,
    strategy: HeadMixing,
    given: Mapping[str, Any],
) -> Array:
    """Return what a plugin makes of scores or weights, checked, in an array that may be written."""
    B, _, T, S = array.shape
    verb, shape = method.__name__, (B, heads, T, S)
    try:
        with Speaking(strategy, f"run {verb}"), np.errstate(all="ignore"):
            mixed = method(array, **given)
    except MemoryError as error:
        raise out_of_memory(
            shape, array.dtype, f"what {verb} of {strategy.name!r} makes"
        ) from error
    if not isinstance(mixed, np.ndarray) or mixed.dtype.kind != "f" or mixed.shape != shape:
        got = f"{mixed.dtype.name} of shape {mixed.shape}" if hasattr(mixed, "dtype") else mixed
        raise PluginError(
            f"mixing {strategy.name!r} must return floats (B, heads, T, S) = {shape} from {verb}, "
            f"got {got!s}"
        )
    mixed = mixed.astype(array.dtype, copy=False)
    return mixed if mixed.flags.writeable else mixed.copy()


def _require_states(strategy: HeadMixing, call: MixedCall) -> None:
    if not strategy.uses_hidden_states:
        return
    if call.hidden_states is None:
        raise ParameterError(
            f"hidden_states must be given, mixing {strategy.name!r} reads the layer's input, "
            "got None"
        )
    if call.source_states is None:
        T, S = call.problem.query.shape[2], call.problem.key.shape[2]
        raise ParameterError(
            f"source_states must be given, mixing {strategy.name!r} reads the layer's input at the "
            f"sources, got None and T={T}, S={S}"
        )
