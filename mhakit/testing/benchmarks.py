"""Benchmarks of head combinations for asv: ours, and those of a plugin's own repository.

Subclass them in a ``bench_*.py`` and give ``params``, and ``forms`` where a combination is written
down in NumPy's best form::

    class Combine(benchmarks.Combine):
        params = (["mine", "concat_project"], ["mhakit", "numpy"])
        forms = {"mine": mine_in_numpy}

H = 12 heads of width E = 64, T = 512 words, float32, heads that lie as attention writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mhakit.api import combine, combine_vjp
from mhakit.layer import MultiHeadAttention

__all__ = ["Combine", "Form", "Gradient", "OverNumpy", "interleaved"]

Array = NDArray[Any]
Form = Callable[[Array, Array, Mapping[str, Array]], Array]
"""``(heads (1, T, H, E), hidden_states (1, T, M), parameters) -> (1, T, M)``"""

H, E, T = 12, 64, 512
M = H * E


class _Combining:
    """One combination and numbers drawn for it."""

    forms: ClassVar[Mapping[str, Form]] = {}

    def draw(self, combination: str) -> None:
        """Draw heads, hidden states and parameters."""
        rng = np.random.default_rng(0)
        self.combination = combination
        layer = MultiHeadAttention(M, H, combine=combination, rng=0)
        self.heads: Array = rng.standard_normal((1, T, H, E), np.float32)
        self.hidden: Array = rng.standard_normal((1, T, M), np.float32)
        learned = layer.parameters()
        self.parameters = {
            name.removeprefix("combine."): value
            for name, value in learned.items()
            if name.startswith("combine.")
        }

    def mhakits(self) -> Array:
        """Combine by mhakit."""
        return combine(
            self.heads.swapaxes(1, 2), self.combination, self.parameters, hidden_states=self.hidden
        )

    def numpys(self) -> Array:
        """Combine in NumPy's best form."""
        return self.forms[self.combination](self.heads, self.hidden, self.parameters)

    def compare(self) -> None:
        """Raise AssertionError unless both compute the same; skip where there is no form."""
        if self.combination not in self.forms:
            raise NotImplementedError("no form of NumPy's is written down")  # asv skips the row
        np.testing.assert_allclose(self.numpys(), self.mhakits(), atol=1e-4)


class Combine(_Combining):
    """How long does each combination take on heads that lie as attention writes them?"""

    params: ClassVar[tuple[Sequence[str], ...]] = (["concat_project"], ["mhakit", "numpy"])
    param_names: ClassVar[tuple[str, ...]] = ("combination", "who")

    def setup(self, combination: str, who: str) -> None:
        """Draw numbers, check that both agree, compile."""
        self.draw(combination)
        if who == "numpy" or combination in self.forms:
            self.compare()
        self.call = self.mhakits if who == "mhakit" else self.numpys
        self.call()

    def time_combine(self, combination: str, who: str) -> None:
        """Time it."""
        self.call()


class Gradient(_Combining):
    """How long does each combination take forward and backward?"""

    params: ClassVar[tuple[Sequence[str], ...]] = (["concat_project"],)
    param_names: ClassVar[tuple[str, ...]] = ("combination",)

    def setup(self, combination: str) -> None:
        """Draw numbers, compile."""
        self.draw(combination)
        self.time_combine_vjp(combination)

    def time_combine_vjp(self, combination: str) -> None:
        """Time it."""
        output, pullback = combine_vjp(
            self.heads.swapaxes(1, 2), combination, self.parameters, hidden_states=self.hidden
        )
        pullback(output)


class OverNumpy(_Combining):
    """How many times as long as NumPy's best form does each combination take?"""

    params: ClassVar[tuple[Sequence[str], ...]] = (["concat_project"],)
    param_names: ClassVar[tuple[str, ...]] = ("combination",)
    unit = "ratio"

    def setup(self, combination: str) -> None:
        """Draw numbers, check that both agree, compile."""
        self.draw(combination)
        self.compare()

    def track_over_numpy(self, combination: str) -> float:
        """Return the ratio of medians."""
        return interleaved(self.mhakits, self.numpys, repeats=15)


def interleaved(
    first: Callable[[], object], second: Callable[[], object], repeats: int = 7
) -> float:
    """Return how many times longer the first takes, by medians of turns taken one by one.

    Examples
    --------
    >>> 0 < interleaved(lambda: sum(range(10)), lambda: sum(range(10))) < float("inf")
    True
    """
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(repeats):
        for i, call in enumerate((first, second)):
            started = perf_counter()
            call()
            times[i].append(perf_counter() - started)
    return float(np.median(times[0]) / np.median(times[1]))
