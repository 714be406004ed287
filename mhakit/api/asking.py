"""What a combination is asked: the caller's arguments, checked once, in the form a plugin sees.

A strategy sees read-only arrays in the computation dtype: it can write to nobody's memory and
need not know of 16-bit floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mhakit.api.parameters import Rng, as_generator, check_parameters
from mhakit.device import is_device_array
from mhakit.errors import ParameterError, ShapeError
from mhakit.plugin_api import HeadCombination, HeadShape
from mhakit.problem import computation_dtype
from mhakit.validation import as_float_array, require_one_place

__all__ = ["Question", "as_heads", "ask", "question_of", "read_only"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One strategy and all that it is given."""

    strategy: HeadCombination
    heads: Array
    """(B, H, T, E) as a plugin sees it; on a device its shape and dtype are all there is to see"""
    parameters: Mapping[str, Array]
    """by name, as a plugin sees them"""
    hidden_states: Array | None
    """(B, T, M) as a plugin sees it; None where the strategy does not read it"""
    training: bool
    rng: np.random.Generator | None
    model_width: int | None
    """M, where an argument tells it"""
    dtype: np.dtype[Any]
    """the dtype of the caller's heads"""

    @property
    def real(self) -> np.dtype[Any]:
        """The computation dtype."""
        return computation_dtype(self.heads.dtype)

    @property
    def given(self) -> dict[str, Any]:
        """The keywords of ``plan`` and ``forward``."""
        return {"hidden_states": self.hidden_states, "training": self.training, "rng": self.rng}


def as_heads(heads: object, hidden_states: object) -> tuple[Array, Array | None, bool]:
    """Return heads (B, H, T, E), hidden states (B, T, M) or None, and whether they came with B."""
    array = as_float_array(heads, "heads", placed=True)
    if array.ndim not in (3, 4):
        raise ShapeError(f"heads must be (B, H, T, E) or (H, T, E), got shape {array.shape}")
    batched = array.ndim == 4
    hidden = (
        None
        if hidden_states is None
        else as_float_array(hidden_states, "hidden_states", placed=True)
    )
    require_one_place({"heads": array, "hidden_states": hidden})
    if hidden is not None and hidden.ndim != array.ndim - 1:
        letters = "(B, T, M) as heads has B" if batched else "(T, M) as heads has no B"
        raise ShapeError(f"hidden_states must be {letters}, got shape {hidden.shape}")
    if batched:
        return array, hidden, True
    return array[None], None if hidden is None else hidden[None], False


def ask(
    strategy: HeadCombination,
    heads: Array,
    parameters: Mapping[str, Any],
    *,
    model_width: int | None = None,
    hidden_states: Array | None = None,
    training: bool = False,
    rng: Rng = None,
) -> Question:
    """Check all that a strategy is given with heads (B, H, T, E); M is read off if None."""
    B, H, T, E = heads.shape
    if H == 0 or E == 0:
        raise ShapeError(f"heads must have H and E of at least 1, got H={H} and E={E}")
    if not isinstance(training, bool | np.bool_):
        raise ParameterError(f"training must be True or False, got {training!r}")
    generator = None if rng is None else as_generator(rng)
    M = _model_width(parameters, hidden_states) if model_width is None else model_width
    if hidden_states is not None and hidden_states.shape != (B, T, M):
        raise ShapeError(
            f"hidden_states must be (B, T, M) with B={B}, T={T} and M={M}, "
            f"got shape {hidden_states.shape}"
        )
    learned = check_parameters(strategy, HeadShape(H, E, H * E if M is None else M), parameters)
    if strategy.uses_hidden_states and hidden_states is None:
        raise ParameterError(
            f"hidden_states must be given, combination {strategy.name!r} reads the layer's input, "
            "got None"
        )
    draws = strategy.stochastic and bool(training)
    if draws and generator is None:
        raise ParameterError(
            f"rng must be an int or a Generator, combination {strategy.name!r} draws when "
            "training, got None"
        )
    return question_of(
        strategy,
        heads,
        learned,
        hidden_states,
        M,
        training=bool(training),
        rng=generator if draws else None,
    )


def question_of(
    strategy: HeadCombination,
    heads: Array,
    parameters: Mapping[str, Array],
    hidden_states: Array | None,
    model_width: int | None,
    *,
    training: bool = False,
    rng: np.random.Generator | None = None,
) -> Question:
    """Return the question that arguments make which were found right."""
    real = computation_dtype(heads.dtype)
    read = hidden_states if strategy.uses_hidden_states else None
    return Question(
        strategy=strategy,
        heads=read_only(heads, real),
        parameters=MappingProxyType({n: read_only(a, real) for n, a in parameters.items()}),
        hidden_states=None if read is None else read_only(read, real),
        training=training,
        rng=rng,
        model_width=model_width,
        dtype=heads.dtype,
    )


def read_only(array: Array, real: np.dtype[Any]) -> Array:
    """Return a read-only view in the computation dtype; 16 bits are widened into a copy.

    An array on a device is left as it is: kernels widen what they read.
    """
    if is_device_array(array):
        return cast(Array, array)
    view = array.view() if array.dtype == real else array.astype(real)
    view.flags.writeable = False
    return view


def _model_width(parameters: Mapping[str, Any], hidden_states: Array | None) -> int | None:
    """Return M, where an argument tells it."""
    if isinstance(parameters, Mapping):
        for name in ("weight", "bias"):
            if name in parameters:
                given = as_float_array(parameters[name], f"parameters[{name!r}]", placed=True)
                shape = given.shape
                if shape:
                    return int(shape[-1])
    return None if hidden_states is None else int(hidden_states.shape[-1])
