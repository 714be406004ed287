"""Whether HEAD lost against BASE, decided from ratios that were taken by turns.

Every trial is two fresh processes, for where a process's memory happens to lie alone moves a figure
by some per cent. In a trial, BASE and HEAD are asked by turns, and each round gives one loss: how
much of its ratio to the peer HEAD is short of BASE's, as a difference of logarithms.
"""

import math
from dataclasses import dataclass
from statistics import median, quantiles

__all__ = ["FLOOR", "Verdict", "decide"]

FLOOR = 0.08
"""The loss that nothing is said about: what a change of alignment may do to a kernel."""

Round = tuple[float, float]
"""The ratio of BASE and of HEAD, taken one after the other."""


@dataclass(frozen=True)
class Verdict:
    """What was found of one benchmark."""

    base: float
    head: float
    loss: float
    """the median of the trials' losses; half as fast is log 2"""
    least: float
    """the smallest loss of a trial"""
    spread: float
    """the range that the middle half of all rounds' losses lies in"""

    @property
    def lost(self) -> bool:
        """Whether every trial lost more than FLOOR, and all together more than the spread."""
        return self.least > FLOOR and self.loss > self.spread

    @property
    def times(self) -> float:
        """How many times as long HEAD takes."""
        return math.exp(self.loss)


def decide(trials: list[list[Round]]) -> Verdict:
    """Return the verdict on one benchmark from its trials' rounds.

    Examples
    --------
    >>> slower = [[(1.5, 1.1), (1.6, 1.2)], [(1.4, 1.1), (1.5, 1.2)]]
    >>> decide(slower).lost, decide([[(base, base) for base, _ in trial] for trial in slower]).lost
    (True, False)
    """
    losses = [[math.log(base / head) for base, head in trial] for trial in trials]
    middles = [median(trial) for trial in losses]
    rounds = [loss for trial in losses for loss in trial]
    low, _, high = quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else (0, 0, 0)
    return Verdict(
        base=median(base for trial in trials for base, _ in trial),
        head=median(head for trial in trials for _, head in trial),
        loss=median(middles),
        least=min(middles),
        spread=high - low,
    )
