"""One combination at one size, with numbers drawn for it: what laws are tried on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit import backends
from mhakit.api import CombinationGradients, combine_vjp
from mhakit.api.asking import ask
from mhakit.api.combining import combine_by
from mhakit.api.parameters import ask_parameters, initialize
from mhakit.errors import ParameterError, PluginError, ShapeError
from mhakit.plugin_api import HeadCombination, HeadShape

__all__ = ["Case", "Extreme", "Trial", "accepts", "backend_names"]

Array = NDArray[Any]


class Case(NamedTuple):
    """The sizes of a trial, in the letters of `mhakit.problem`."""

    B: int
    H: int
    T: int
    E: int
    M: int

    def __str__(self) -> str:
        return ", ".join(f"{letter}={size}" for letter, size in self._asdict().items())

    @property
    def shape(self) -> HeadShape:
        """What the combination is asked to be built for."""
        return HeadShape(self.H, self.E, self.M)


def accepts(strategy: HeadCombination, case: Case) -> bool:
    """Whether the combination takes these sizes: validate refuses others by a named error."""
    try:
        strategy.validate(case.shape)
    except (ParameterError, ShapeError):
        return False
    except Exception:
        return True  # what else it raises is for a law to name
    return True


def backend_names() -> list[str]:
    """Return the backends that run here and have gradients."""
    return [
        name for name, reason in backends.availability().items() if not reason and name != "cuda"
    ]


class Trial:
    """A combination, its sizes and backend, and float64 numbers drawn from a seed.

    Parameters begin as the combination says, moved a little, so that none is 0 by chance.
    """

    def __init__(self, strategy: HeadCombination, case: Case, backend: str, seed: int) -> None:
        self.strategy, self.case, self.backend, self.seed = strategy, case, backend, seed
        rng = np.random.default_rng(seed)
        B, H, T, E, M = case
        self.heads: Array = rng.standard_normal((B, H, T, E))
        self.hidden: Array = rng.standard_normal((B, T, M))
        self.d_output: Array = rng.standard_normal((B, T, M))
        self.parameters: dict[str, Array] = {
            name: initialize(strategy, name, spec, rng)
            + rng.uniform(0.1, 0.5, tuple(spec.shape)) * rng.choice([-1, 1], tuple(spec.shape))
            for name, spec in ask_parameters(strategy, case.shape).items()
        }

    def redrawn(self, case: Case | None = None) -> Trial:
        """Return another trial of the same combination, with other numbers."""
        return Trial(self.strategy, case or self.case, self.backend, self.seed + 1)

    def modes(self) -> Iterator[dict[str, Any]]:
        """Yield the keywords of use and, where the combination draws, of training."""
        yield {"training": False}
        if self.strategy.stochastic:
            yield {"training": True, "rng": self.seed}

    def given(
        self,
        heads: Array | None = None,
        hidden: Array | None = None,
        parameters: Mapping[str, Array] | None = None,
    ) -> tuple[Array, Array, Mapping[str, Array]]:
        """Return this trial's own numbers where none are given."""
        return (
            self.heads if heads is None else heads,
            self.hidden if hidden is None else hidden,
            self.parameters if parameters is None else parameters,
        )

    def run(
        self,
        heads: Array | None = None,
        hidden: Array | None = None,
        parameters: Mapping[str, Array] | None = None,
        **mode: Any,
    ) -> Array:
        """Combine; what is left out is this trial's own."""
        z, x, learned = self.given(heads, hidden, parameters)
        question = ask(self.strategy, z, learned, model_width=self.case.M, hidden_states=x, **mode)
        return combine_by(question, self.backend)

    def pull(
        self,
        heads: Array | None = None,
        hidden: Array | None = None,
        parameters: Mapping[str, Array] | None = None,
        **mode: Any,
    ) -> CombinationGradients:
        """Pull this trial's d_output back; what is left out is this trial's own."""
        z, x, learned = self.given(heads, hidden, parameters)
        _, pullback = combine_vjp(
            z, self.strategy, learned, hidden_states=x, backend=self.backend, **mode
        )
        return pullback(self.d_output.astype(z.dtype))

    def pull_if_defined(self, **keywords: Any) -> CombinationGradients | None:
        """Pull back, or return None where there is no gradient: that is one law's to say."""
        try:
            return self.pull(**keywords)
        except PluginError:
            return None

    def ask_directly(self, dtype: Any) -> tuple[Any, tuple[Array, ...]]:
        """Return what plan, or else forward, answers to writable arrays, and those arrays."""
        heads, hidden = self.heads.astype(dtype), self.hidden.astype(dtype)
        learned = {name: array.astype(dtype) for name, array in self.parameters.items()}
        given: dict[str, Any] = {
            "hidden_states": hidden if self.strategy.uses_hidden_states else None,
            "training": False,
            "rng": None,
        }
        answer: Any = None
        try:
            answer = self.strategy.plan(heads, learned, **given)
            if answer is None:
                answer = self.strategy.forward(heads, learned, **given)[0]
        except Exception:
            answer = None  # another law says so
        return answer, (heads, hidden, *learned.values())

    def spied(self, answers: list[tuple[str, Any]]) -> Trial:
        """Return this trial with what plan_vjp and backward return noted down."""
        trial = copy.copy(self)
        strategy = trial.strategy = copy.copy(self.strategy)
        for verb in ("plan_vjp", "backward"):

            def noting(*args: Any, verb: str = verb, **keywords: Any) -> Any:
                answer = getattr(type(strategy), verb)(strategy, *args, **keywords)
                answers.append((verb, answer))
                return answer

            setattr(strategy, verb, noting)
        return trial


class Extreme(np.random.Generator):
    """Draws that are always the lowest, or always the highest: what may happen, made to happen."""

    def __init__(self, high: bool) -> None:
        super().__init__(np.random.PCG64(0))
        self._high = high

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Draw the lowest or highest number of [0, 1)."""
        value = np.nextafter(np.dtype(dtype).type(1), 0) if self._high else 0.0
        drawn = np.full(() if size is None else size, value, dtype)
        if out is not None:
            out[...] = drawn
        return drawn[()]

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """Draw the lowest or highest number of [low, high)."""
        return low + (np.asarray(high) - low) * self.random(size)

    def integers(  # type: ignore[override]
        self, low: Any, high: Any = None, size: Any = None, **rest: Any
    ) -> Any:
        """Draw the lowest or highest integer."""
        drawn = super().integers(low, high, size, **rest)
        first, end = (0, low) if high is None else (low, high)
        last = end if rest.get("endpoint") else end - 1
        return np.full_like(drawn, last if self._high else first)[()]

    def binomial(self, n: Any, p: Any, size: Any = None) -> Any:
        """Draw n or 0, whatever p."""
        drawn = super().binomial(n, p, size)
        return np.full_like(drawn, np.asarray(n) if self._high else 0)[()]
