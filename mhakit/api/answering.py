"""The gradients that a plugin's own code returns, held against the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.api.asking import Question
from mhakit.errors import PluginError

__all__ = ["GradientAnswer"]

Array = NDArray[Any]


class GradientAnswer:
    """The three gradients that a strategy's code returned, held against the rules one by one."""

    def __init__(self, question: Question, verb: str, result: object) -> None:
        self._question, self._verb = question, verb
        if not isinstance(result, tuple) or len(result) != 3:
            got = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
            raise self.must("d_heads, d_hidden_states, d_parameters", got)
        self._heads, self._hidden, self.given = result
        if not isinstance(self.given, Mapping):
            raise self.must("d_parameters as a dict by name", type(self.given).__name__)
        names = ", ".join(question.parameters) or "none"
        for name in self.given:
            if name not in question.parameters:
                raise self.must(f"gradients of its parameters alone ({names})", repr(name))

    def must(self, rule: str, got: str) -> PluginError:
        """Return the error that names the rule and what came."""
        name = self._question.strategy.name
        return PluginError(f"combination {name!r} must return {rule} from {self._verb}, got {got}")

    def heads(self, *, needed: bool) -> Array | None:
        """Return d_heads (B, H, T, E), or None where it may be and is missing."""
        if self._heads is None and not needed:
            return None
        shape = self._question.heads.shape
        return self._array(self._heads, f"d_heads (B, H, T, E) = {shape}", shape)

    def hidden(self) -> Array | None:
        """Return d_hidden_states (B, T, M), or None where they are not read."""
        hidden = self._question.hidden_states
        if hidden is not None:
            rule = f"d_hidden_states (B, T, M) = {hidden.shape}, as it reads hidden_states,"
            return self._array(self._hidden, rule, hidden.shape)
        if self._hidden is not None:
            raise self.must(
                "None for d_hidden_states, as uses_hidden_states is False,",
                type(self._hidden).__name__,
            )
        return None

    def parameter(self, name: str) -> Array:
        """Return the gradient of one parameter, in its shape."""
        shape = self._question.parameters[name].shape
        if name not in self.given:
            raise self.must(f"a gradient of {name!r}, which is no field of its plan,", "none")
        return self._array(self.given[name], f"a gradient of {name!r} of shape {shape}", shape)

    def _array(self, value: object, rule: str, shape: tuple[int, ...]) -> Array:
        if value is None:
            raise self.must(rule, "None")
        array = np.asarray(value)
        if array.dtype.kind != "f" or array.shape != shape:
            raise self.must(rule, f"{array.dtype.name} of shape {array.shape}")
        return np.array(array, self._question.real)  # what it returned may be its residuals
