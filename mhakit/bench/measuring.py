"""A row measured: each of its goals becomes a result, or says why it could not be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

from mhakit.bench.contest import Contest
from mhakit.bench.rows import (
    PEERS,
    Attention,
    Combination,
    Decoding,
    Goal,
    Layer,
    Prefill,
    Row,
)
from mhakit.bench.timing import FULL, Effort, Timings, geometric_mean, take_turns
from mhakit.errors import MissingExtra

__all__ = ["Result", "contest", "headline", "measure", "measure_all"]


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one row against one goal; all figures None where nothing was."""

    family: str
    shape: str
    against: str
    target: float | None
    stretch: float | None
    at_most: bool
    measured: float | None = None
    low: float | None = None
    """quartiles of the ratios of single turns"""
    high: float | None = None
    seconds: float | None = None
    """mhakit's median"""
    peer_seconds: float | None = None
    turns: int = 0
    note: str = ""
    wrong: bool = False
    """whether a check failed, so that the row means nothing"""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, or nothing was measured."""
        if self.target is None or self.measured is None:
            return None
        if self.at_most:
            return self.measured <= self.target
        return self.measured >= self.target

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers and strings, for JSON."""
        return {**asdict(self), "met": self.met}


def contest(row: Row) -> Contest:
    """Return a row's calls; peers are made and checked when asked for."""
    match row.work:
        case Attention():
            from mhakit.bench import attention

            return attention.contest(row.work)
        case Layer():
            from mhakit.bench import layers

            return layers.contest(row.work)
        case Combination():
            from mhakit.bench import combining

            return combining.contest(row.work)
        case _:
            raise TypeError(f"a row of {type(row.work).__name__} is no race")


def measure(
    row: Row, effort: Effort = FULL, clock: Callable[[], float] = perf_counter
) -> Iterator[Result]:
    """Yield a result for each goal of a row, as it is measured."""
    if isinstance(row.work, Prefill | Decoding):
        from mhakit.bench.memory import growth

        figure, note = growth(row.work)
        for goal in row.goals:
            yield _result(row, goal, measured=figure, note=note)
        return
    made = contest(row)
    for goal in row.goals:
        try:
            timings, share, note = _race(made, goal, effort, clock)
        except MissingExtra as error:
            yield _result(row, goal, note=str(error).partition(";")[0])
        except AssertionError as error:
            yield _result(row, goal, note=str(error), wrong=True)
        else:
            low, high = timings.spread
            yield _result(
                row,
                goal,
                measured=timings.ratio * share,
                low=low * share,
                high=high * share,
                seconds=median(timings.mine),
                peer_seconds=median(timings.peer),
                turns=len(timings.mine),
                note=note,
            )


def measure_all(rows: Iterable[Row], effort: Effort = FULL) -> Iterator[Result]:
    """Yield the results of all rows, in order."""
    for row in rows:
        yield from measure(row, effort)


def headline(results: Iterable[Result]) -> float | None:
    """Return the geometric mean of the ratios to peers that the table names a target for."""
    return geometric_mean(
        [
            result.measured
            for result in results
            if result.against in PEERS and result.target is not None and result.measured is not None
        ]
    )


def _race(
    made: Contest, goal: Goal, effort: Effort, clock: Callable[[], float]
) -> tuple[Timings, float, str]:
    """Return the timings, what their ratio is to be multiplied by, and a note."""
    if goal.against in PEERS:
        peer = made.peers[goal.against]()
        return take_turns(made.mine, peer.call, effort, clock), 1.0, peer.note
    from mhakit.bench.machine import rate

    limit = rate(goal.against)
    timings = take_turns(made.mine, limit.call, effort, clock)
    done = made.work[goal.against]
    reached = f"{done / median(timings.mine) / 1e9:.0f} of"
    unit = {"matmul": "GFLOP/s", "read": "GB/s"}[goal.against]
    note = f"{reached} {limit.work / median(timings.peer) / 1e9:.0f} {unit} ({limit.who})"
    return timings, done / limit.work, note


def _result(row: Row, goal: Goal, **measured: Any) -> Result:
    return Result(
        row.family, str(row.work), goal.against, goal.target, goal.stretch, goal.at_most, **measured
    )
