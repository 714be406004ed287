"""The arithmetic of `mhakit bench`: turns, ratios, rates and memory, by a clock of one's own."""

from types import SimpleNamespace

import numpy as np
import pytest

import mhakit
from material.rows import SMALL
from mhakit.bench import measuring, memory
from mhakit.bench.contest import Contest
from mhakit.bench.measuring import measure
from mhakit.bench.rows import Goal, Prefill, Row
from mhakit.bench.timing import QUICK, Effort, Timings, fastest, geometric_mean, take_turns


class Clock:
    """A clock that only the calls it makes move forward."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def call(self, name, seconds):
        def take():
            self.calls.append(name)
            self.now += seconds

        return take


def test_the_ratio_is_the_median_of_turns_and_the_spread_their_quartiles():
    timings = Timings(mine=(1.0, 1.0, 1.0, 2.0, 100.0), peer=(3.0, 2.0, 4.0, 2.0, 100.0))
    assert timings.ratio == 2.0  # of 3, 2, 4, 1, 1
    assert timings.spread == (1.0, 3.0)
    assert Timings((2.0,), (1.0,)).spread == (0.5, 0.5)


def test_a_machine_that_changes_its_pace_half_way_changes_no_ratio():
    """The peer takes twice as long; the pace changed once, in the middle of the second turn."""
    timings = Timings(mine=(1.0, 1.0, 3.0), peer=(2.0, 6.0, 6.0))
    assert timings.ratio == 2.0  # the ratio of medians is 6, above every quartile
    assert timings.spread == (2.0, 4.0)


def test_the_geometric_mean_weighs_twice_as_fast_against_half_as_fast():
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert geometric_mean([1.0, 2.0, 4.0]) == pytest.approx(2.0)
    assert geometric_mean([]) is None


def test_both_sides_take_turns_and_a_short_call_is_repeated_within_one():
    clock = Clock()
    effort = Effort(seconds=0.0, repeats=3, patience=1.0, sample=4.0)
    timings = take_turns(clock.call("A", 1.0), clock.call("B", 8.0), effort, clock)
    assert clock.calls[:4] == ["A", "B", "A", "B"]  # warm-up, then to see how long they take
    assert clock.calls[4:] == ["A", "A", "A", "A", "B"] * 3
    assert timings == Timings((1.0,) * 3, (8.0,) * 3)


def test_the_faster_side_runs_as_long_as_asked_and_patience_ends_a_slow_row():
    clock = Clock()
    effort = Effort(seconds=1.0, repeats=7, patience=100.0, sample=0.0)
    timings = take_turns(clock.call("A", 0.125), clock.call("B", 1.0), effort, clock)
    assert sum(timings.mine) >= 1.0
    hasty = effort._replace(patience=1.0)
    assert len(take_turns(clock.call("A", 0.01), clock.call("B", 1.0), hasty, clock).mine) == 7


def test_the_fastest_form_is_the_one_taken():
    clock = Clock()
    calls = {"slow": clock.call("slow", 2.0), "fast": clock.call("fast", 1.0)}
    assert fastest(calls, clock) == "fast"


def test_a_rate_is_held_against_the_work_that_was_done(monkeypatch):
    clock = Clock()
    made = Contest(clock.call("mine", 2.0), {}, {"matmul": 4e9})
    limit = SimpleNamespace(call=clock.call("limit", 2.0), work=8e9, who="numpy")
    monkeypatch.setattr(measuring, "contest", lambda row: made)
    monkeypatch.setattr("mhakit.bench.machine.rate", lambda name: limit)
    (told,) = measure(Row("dense", SMALL, (Goal("matmul", 1.0),)), QUICK, clock)
    assert told.measured == told.low == told.high == 0.5
    assert told.note == "2 of 4 GFLOP/s (numpy)"
    assert told.met is False


def test_memory_that_grows_with_the_targets_is_counted(monkeypatch):
    work = Prefill(T=(64, 256))
    still, note = memory.growth(work)
    assert note.endswith(" bytes")
    attend = mhakit.attention

    def wasteful(query, *others, **keywords):
        scores = np.empty((query.shape[2], 100), np.float32)
        return attend(query, *others, **keywords) + 0 * scores[0, 0].item()

    monkeypatch.setattr(mhakit, "attention", wasteful)
    assert memory.growth(work)[0] >= still + 400
