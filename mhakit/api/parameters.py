"""Learned parameters of a combination or mixing: which, of what shape, how they begin."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import MhakitError, ParameterError, PluginError, ShapeError
from mhakit.plugin_api import (
    HeadCombination,
    HeadMixing,
    HeadShape,
    MixingShape,
    ParameterSpec,
)
from mhakit.validation import as_float_array

__all__ = [
    "Rng",
    "Speaking",
    "as_generator",
    "ask_parameters",
    "check_parameters",
    "initialize",
    "require_mapping",
]

Array = NDArray[Any]
Rng = int | np.random.Generator | None
Strategy = HeadCombination | HeadMixing
Shape = HeadShape | MixingShape

INITIALIZERS = ("zeros", "ones", "uniform_fan_in", "xavier_uniform", "identity")


def as_generator(rng: object) -> np.random.Generator:
    """Return the Generator that None (fresh entropy), an int or a Generator stands for."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None or (
        isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0
    ):
        return np.random.default_rng(None if rng is None else int(rng))
    raise ParameterError(
        f"rng must be None, an int of at least 0 or a numpy.random.Generator, got {rng!r}"
    )


def require_mapping(parameters: object) -> None:
    """Raise ParameterError unless arrays come by name."""
    if not isinstance(parameters, Mapping):
        raise ParameterError(
            f"parameters must be a mapping of names to arrays, got {type(parameters).__name__}"
        )


def check_parameters(
    strategy: Strategy, shape: Shape, parameters: Mapping[str, Any]
) -> dict[str, Array]:
    """Return the parameters a strategy asks for, or raise for one that is missing or unfit."""
    require_mapping(parameters)
    specs = ask_parameters(strategy, shape)

    def not_these(got: str) -> ParameterError:
        names = ", ".join(specs) or "none"
        return ParameterError(f"parameters of {strategy.name!r} must be: {names}, got {got}")

    for given in parameters:
        if given not in specs:
            near = difflib.get_close_matches(str(given), specs, n=1)
            raise not_these(f"{given!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    arrays = {}
    for name, spec in specs.items():
        if name not in parameters:
            raise not_these(f"none named {name!r}")
        array = as_float_array(parameters[name], f"parameters[{name!r}]", placed=True)
        if array.shape != tuple(spec.shape):
            raise ShapeError(
                f"parameters[{name!r}] of {strategy.name!r} must have shape {tuple(spec.shape)} "
                f"for {_sizes(shape)}, got shape {array.shape}"
            )
        arrays[name] = array
    return arrays


def _sizes(shape: Shape) -> str:
    if isinstance(shape, HeadShape):
        return f"H={shape.num_heads}, E={shape.head_width} and M={shape.model_width}"
    width = "" if shape.model_width is None else f" and M={shape.model_width}"
    return (
        f"{shape.score_heads} heads of scores, {shape.softmax_heads} of softmax, "
        f"{shape.value_heads} of values{width}"
    )


def ask_parameters(strategy: Strategy, shape: Shape) -> dict[str, ParameterSpec]:
    """Return what a strategy learns at these sizes, or raise where it cannot be built for them."""
    asked: Any = strategy  # a combination takes a HeadShape, a mixing a MixingShape
    with Speaking(strategy, "validate and give parameters"):
        asked.validate(shape)
        specs = asked.parameters(shape)
    if not isinstance(specs, dict) or not all(
        isinstance(spec, ParameterSpec) for spec in specs.values()
    ):
        raise PluginError(
            f"{_named(strategy)} must give parameters as a dict of names to "
            f"ParameterSpec, got {specs!r}"
        )
    return specs


class Speaking:
    """Names the strategy in whatever its code raises; mhakit's own errors pass as they are.

    A class, no generator: every call of `mhakit.combine` enters two of them.
    """

    __slots__ = ("_strategy", "_verb")

    def __init__(self, strategy: Strategy, verb: str) -> None:
        self._strategy, self._verb = strategy, verb

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, MhakitError | MemoryError):
            raise PluginError(
                f"{_named(self._strategy)} must {self._verb} without an error, "
                f"got {type(error).__name__}: {error}"
            ) from error


def _named(strategy: Strategy) -> str:
    noun = "mixing" if isinstance(strategy, HeadMixing) else "combination"
    return f"{noun} {strategy.name!r}"


def initialize(
    strategy: Strategy, name: str, spec: ParameterSpec, rng: np.random.Generator
) -> Array:
    """Return the values that one parameter begins with, in float64."""
    shape = tuple(spec.shape)
    if callable(spec.init):
        with Speaking(strategy, f"initialise {name!r}"):
            values = np.asarray(spec.init(rng, shape), dtype=np.float64)
        if values.shape != shape:
            raise PluginError(
                f"{_named(strategy)} must initialise {name!r} with shape {shape}, "
                f"got shape {values.shape}"
            )
        return values
    match spec.init:
        case "zeros":
            return np.zeros(shape)
        case "ones":
            return np.ones(shape)
        case "uniform_fan_in" if shape:
            bound = 1 / math.sqrt(max(shape[0], 1))
            return rng.uniform(-bound, bound, shape)
        case "xavier_uniform" if len(shape) >= 2:
            bound = math.sqrt(6 / max(shape[0] + shape[1], 1))
            return rng.uniform(-bound, bound, shape)
        case "identity" if len(shape) == 2:
            return np.eye(*shape)
    raise PluginError(
        f"{_named(strategy)} must initialise {name!r} of shape {shape} by a function "
        f"(rng, shape) or by one of {', '.join(INITIALIZERS)} that fits it, got {spec.init!r}"
    )
