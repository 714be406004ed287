"""Time two calls in turns, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import NamedTuple

__all__ = ["FULL", "QUICK", "Effort", "Timings", "fastest", "geometric_mean", "take_turns", "turns"]

Call = Callable[[], object]


class Effort(NamedTuple):
    """How long to measure: turns until the faster side ran so long, so many at the least."""

    seconds: float
    repeats: int
    patience: float
    """Seconds for both sides together, after which the repeats alone count."""
    sample: float
    """Seconds of one turn at the least; shorter calls are repeated within it."""


FULL = Effort(0.5, 7, 4.0, 2e-3)
QUICK = Effort(0.03, 3, 0.3, 2e-4)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a call, turn by turn: ``mine[i]`` was taken right before ``peer[i]``."""

    mine: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times longer the peer takes, turn by turn.

        A turn's two sides meet the machine in one state: where its clock changes half way, medians
        of either side can come from different states, and their ratio from none.
        """
        return [peer / mine for mine, peer in zip(self.mine, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the turns' ratios.

        Examples
        --------
        >>> Timings((1.0, 2.0, 9.0), (4.0, 6.0, 18.0)).ratio
        3.0
        """
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The lower and the upper quartile of the turns' ratios.

        Examples
        --------
        >>> Timings((1.0,) * 5, (5.0, 1.0, 2.0, 4.0, 3.0)).spread
        (2.0, 4.0)
        """
        if len(self.mine) == 1:
            return self.ratio, self.ratio
        low, _, high = quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def take_turns(
    mine: Call, peer: Call, effort: Effort = FULL, clock: Callable[[], float] = perf_counter
) -> Timings:
    """Time both in turns, after one call of each that is not counted."""
    mine()
    peer()
    once = [_turn(call, 1, clock) for call in (mine, peer)]
    inner = [max(1, math.ceil(effort.sample / max(taken, 1e-9))) for taken in once]
    turn = [max(taken * count, 1e-9) for taken, count in zip(once, inner, strict=True)]
    wanted = min(math.ceil(effort.seconds / min(turn)), math.ceil(effort.patience / sum(turn)))
    taken: tuple[list[float], list[float]] = ([], [])
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(max(effort.repeats, wanted)):
            for side, call in enumerate((mine, peer)):
                taken[side].append(_turn(call, inner[side], clock))
    finally:
        if collecting:
            gc.enable()
    return Timings(tuple(taken[0]), tuple(taken[1]))


def fastest(calls: dict[str, Call], clock: Callable[[], float] = perf_counter) -> str:
    """Return the name of the call whose best of a few turns is the shortest."""
    best = dict.fromkeys(calls, math.inf)
    for _ in range(4):
        for name, call in calls.items():
            best[name] = min(best[name], _turn(call, 1, clock))
    return min(best, key=lambda name: best[name])


def turns(call: Call, count: int, clock: Callable[[], float] = perf_counter) -> list[float]:
    """Return the seconds of so many calls, one after the other."""
    return [_turn(call, 1, clock) for _ in range(count)]


def geometric_mean(ratios: Sequence[float]) -> float | None:
    """Return the geometric mean, None of nothing.

    Examples
    --------
    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    if not ratios:
        return None
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))


def _turn(call: Call, inner: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(inner):
        call()
    return (clock() - started) / inner
