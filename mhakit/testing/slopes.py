"""The law of gradients: slopes of a combination along random directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit.api import CombinationGradients
from mhakit.testing.trial import Trial

__all__ = ["Side", "gradient", "sides_of"]

Array = NDArray[Any]

STEP = 1e-5
"""Of central differences in float64: their own error is 1e-10 of the function's size."""

SLOPE = 1e-6
"""Of the terms of a directional derivative: what may be missing of it."""


def gradient(trial: Trial) -> str | None:
    """Compare with slopes along random directions, in use and when training."""
    # a kink between the two ends of a difference is no fault, and another draw has none
    return _wrong_slope(trial) and _wrong_slope(trial.redrawn())


def _wrong_slope(trial: Trial) -> str | None:
    rng = np.random.default_rng(trial.seed)
    for mode in trial.modes():
        gradients = trial.pull(**mode)
        size = np.abs(trial.run(**mode) * trial.d_output).sum()
        for side in sides_of(trial, gradients):
            way, slope = rng.standard_normal(side.value.shape), side.gradient
            ends = [
                trial.run(**side.given(trial, side.value + sign * STEP * way), **mode)
                for sign in (1, -1)
            ]
            found = ((ends[0] - ends[1]) * trial.d_output).sum() / (2 * STEP)
            said = (slope * way).sum()
            allowed = SLOPE * np.abs(slope * way).sum() + size * 1e-15 / STEP
            if not abs(found - said) <= allowed:
                training = " when training" if mode["training"] else ""
                return (
                    f"along a direction of {side.label}{training} the gradient gives {said:.6g}, "
                    f"finite differences {found:.6g}, allowed {allowed:.1g} between them"
                )
    return None


class Side(NamedTuple):
    """One input, its gradient, and the keyword of a run that gives it another value."""

    label: str
    value: Array
    gradient: Array
    keyword: str
    parameter: str = ""

    def given(self, trial: Trial, value: Array) -> dict[str, Any]:
        """Return the keywords of a run with another value."""
        if self.parameter:
            return {self.keyword: {**trial.parameters, self.parameter: value}}
        return {self.keyword: value}


def sides_of(trial: Trial, gradients: CombinationGradients) -> Iterator[Side]:
    """Yield each input with its gradient."""
    yield Side("heads", trial.heads, gradients.heads, "heads")
    if gradients.hidden_states is not None:
        yield Side("hidden_states", trial.hidden, gradients.hidden_states, "hidden")
    for name, value in trial.parameters.items():
        gradient = gradients.parameters[name]
        yield Side(f"parameters[{name!r}]", value, gradient, "parameters", name)
