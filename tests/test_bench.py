"""The table of `mhakit bench`: its rows, its arithmetic, its checks, its words. No time is judged."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import mhakit
from mhakit.bench import (
    attention,
    checks,
    combining,
    contest,
    layers,
    measuring,
    memory,
    process,
    report,
)
from mhakit.bench.contest import Contest
from mhakit.bench.measuring import Result, headline, measure
from mhakit.bench.rows import ROWS, Attention, Combination, Goal, Layer, Prefill, Row, chosen
from mhakit.bench.table import Table
from mhakit.bench.timing import QUICK, Effort, Timings, fastest, geometric_mean, take_turns
from mhakit.cli.commands import command
from mhakit.errors import ParameterError
from mhakit.testing import Sizes

SMALL = Attention(Sizes(1, 4, 4, 20, 30, 16, 16))
SMALL_CAUSAL = Attention(Sizes(1, 4, 4, 20, 20, 16, 16), causal=True)

WANTED = {
    "dense 1,12,2048,2048,64": {"torch": (1.2, None), "onnxruntime": (1.1, None)},
    "dense 1,8,4096,4096,128": {"torch": (1.15, None), "onnxruntime": (1.05, None), "matmul": (1.0, None)},
    "dense 8,12,128,128,64": {"torch": (1.3, None)},
    "dense 1,12,512,512,64": {"torch": (1.3, None)},
    "causal 1,12,2048,2048,64": {"torch": (1.35, 1.5)},
    "causal 1,8,4096,4096,128": {"torch": (1.35, 1.5)},
    "window 128,128 *,8192,8192,*": {"torch": (10, None)},
    "window 256,0 causal *": {"torch": (10, None)},
    "padded *": {"torch": (1.8, None)},
    "random mask *": {"torch": (1.1, None)},
    "additive bias *": {"torch": (1.1, None)},
    "score_mod ALiBi *": {"torch": (1.1, None)},
    "float64 dense *": {"torch": (1.4, None)},
    "float64 causal *": {"torch": (1.4, None)},
    "float16 dense *": {"torch": (1.6, None)},
    "float16 causal *": {"torch": (1.6, None)},
    "bfloat16 dense *": {"torch": (1.2, None)},
    "bfloat16 causal *": {"torch": (1.2, None)},
    "grouped causal 1,32/8,2048,2048,128": {"torch": (1.4, None)},
    "decoding 1,32/8,1,8192,128": {"torch": (5, 7), "read": (0.5, 0.7)},
    "decoding 1,32,1,4096,128": {"torch": (2, 2.5), "read": (0.5, 0.7)},
    "decoding 8,32/8,1,2048,128": {"torch": (2.7, 3.5), "read": (0.5, 0.7)},
    **{f"odd *,333,1000,{D}": {"torch": (1.1, None)} for D in (40, 72, 80, 96, 256)},
    **{f"odd *,{T},{S},64": {"torch": (1.1, None)} for T in (17, 333, 1000) for S in (17, 333, 1000)},
    "tiny 1,8,4,4,16": {"torch": (1.1, 1.5)},
    "tiny 1,12,16,16,32": {"torch": (1.1, 1.5)},
    **{f"layer{w} {shape}": {"torch": (1.15, None)} for w in ("", " and weights") for shape in ("1,512", "8,128", "1,2048")},
    "combine average 12,64,512": {"numpy": (1.0, None)},
    "combine concat_project 12,64,512": {"numpy": (1.0, None)},
}  # fmt: skip


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


def result(**given):
    return Result("dense", "1,2", "torch", 1.2, None, False, **given)


@pytest.mark.parametrize("pattern", list(WANTED))
def test_the_table_holds_every_target(pattern):
    rows = [row for row in ROWS if row.name == pattern] or list(chosen([pattern]))
    assert len(rows) == 1, rows
    goals = {g.against: (g.target, g.stretch) for g in rows[0].goals if g.target is not None}
    assert goals == WANTED[pattern]


def test_every_name_is_one_row_and_every_row_but_memorys_is_wanted():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    timed = [name for name in names if not name.startswith("memory")]
    assert len(timed) == len(WANTED)


def test_a_pattern_is_part_of_a_name_or_a_whole_name_with_wildcards():
    assert [row.name for row in chosen(["TINY"])] == ["tiny 1,8,4,4,16", "tiny 1,12,16,16,32"]
    assert chosen(["padded", "tiny"])[0].family == "padded"  # in the table's order, each once
    assert len(chosen(["tiny", "tiny 1,8*"])) == 2
    assert chosen([]) == ROWS


def test_an_unknown_pattern_is_told_the_nearest_row():
    with pytest.raises(
        ParameterError, match=r"only must be part of a row's name, got 'tinny'; the nearest is 'tiny', and --list shows all"
    ):  # fmt: skip
        chosen(["tinny"])


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


def test_a_target_is_met_from_its_figure_on_or_down_to_it():
    assert result(measured=1.2).met is True
    assert result(measured=1.19).met is False
    assert result().met is None
    assert replace(result(measured=1.0), target=None).met is None
    assert replace(result(measured=1.0), at_most=True).met is True
    assert replace(result(measured=1.3), at_most=True).met is False


def test_the_headline_is_of_peers_with_a_target_alone():
    told = [
        result(measured=2.0),
        replace(result(measured=8.0), against="numpy"),
        replace(result(measured=100.0), target=None),
        replace(result(measured=100.0), against="matmul"),
        result(),
    ]
    assert headline(told) == pytest.approx(4.0)
    assert headline([result()]) is None


@pytest.mark.parametrize(
    "work",
    [
        SMALL,
        SMALL_CAUSAL,
        replace(SMALL_CAUSAL, causal=False, window=(3, 2)),
        replace(SMALL_CAUSAL, window=(4, 0)),
        Attention(Sizes(3, 4, 2, 20, 32, 16, 16), padded=True),
        replace(SMALL, changed="mask"),
        replace(SMALL, changed="bias"),
    ],
    ids=["dense", "causal", "window", "causal window", "padded", "mask", "bias"],
)
def test_numpys_formula_and_mhakit_are_the_same_row(work):
    peer = attention.contest(work).peers["numpy"]()
    assert peer.call().shape == (work.sizes.B, 4, 20, 16)


def test_a_score_mods_bias_says_what_the_score_mod_says():
    given = attention.case(replace(SMALL_CAUSAL, causal=False, changed="alibi"))
    query, key, value = given.query, given.key, given.value
    mine = mhakit.attention(query, key, value, backend="reference", **given.keywords)
    attention.check(given, mine, attention.with_numpy(given)(), "numpy")
    other = replace(given, bias=given.bias / 2)
    with pytest.raises(AssertionError, match="numpy"):
        attention.check(given, mine, attention.with_numpy(other)(), "numpy")


def wrong(given):
    """Return results that a peer might give for a row, none of them the row's."""
    query, key, value, keywords = given.query, given.key, given.value, given.keywords
    right = mhakit.attention(query, key, value, **keywords)
    one = right.copy()
    one[0, 3, 11, 5] += 1e-5
    return {
        "another scale": mhakit.attention(query, key, value, scale=0.24, **keywords),
        "nothing hidden": mhakit.attention(query, key, value, window=(19, 19)),
        "one number off": one,
        "one number NaN": np.where(one == one[0, 3, 11, 5], np.float32("nan"), one),
        "another shape": right[:, :, :-1],
    }


@pytest.mark.parametrize(
    "mistake",
    ["another scale", "nothing hidden", "one number off", "one number NaN", "another shape"],
)
@pytest.mark.parametrize("sampled", [False, True], ids=["every target", "a sample"])
def test_a_peer_that_computes_something_else_is_caught(mistake, sampled, monkeypatch):
    if sampled:
        monkeypatch.setattr(checks, "CHECKED", 1)
    given = attention.case(SMALL_CAUSAL)
    right = mhakit.attention(given.query, given.key, given.value, **given.keywords)
    attention.check(given, right, right.copy(), "torch")
    with pytest.raises(AssertionError, match=r"torch|the peer \(1, 4, 19, 16\)"):
        attention.check(given, right, wrong(given)[mistake], "torch")


def test_a_row_that_fails_its_check_is_told_and_not_timed(monkeypatch):
    monkeypatch.setitem(attention.MAKE, "numpy", lambda given: lambda: given.query * 2)
    (told,) = measure(Row("dense", SMALL, (Goal("numpy", 1.0),)), QUICK)
    assert told.wrong
    assert told.measured is None
    assert told.note.startswith("numpy: error ")


@pytest.mark.parametrize("weights", [False, True])
def test_a_layer_that_computes_something_else_is_caught(weights):
    work = Layer(2, 9, weights, M=32, H=4)
    state, x = layers.draw_state(work), np.random.default_rng(0).standard_normal((2, 9, 32))
    x = x.astype(np.float32)
    layer = mhakit.MultiHeadAttention.from_torch_state_dict(state, 4)
    mine = layer(x, return_weights=True) if weights else layer(x)
    layers.check(work, state, x, mine, mine, "torch")
    other = layer(x + np.float32(1e-5), return_weights=True)
    with pytest.raises(AssertionError, match="torch, output"):
        layers.check(work, state, x, mine, other if weights else other[0], "torch")
    if weights:
        with pytest.raises(AssertionError, match="torch, weights"):
            layers.check(work, state, x, mine, (mine[0], other[1]), "torch")


@pytest.mark.parametrize("name", ["average", "concat_project"])
def test_every_form_in_numpy_combines_as_mhakit_does(name, monkeypatch):
    work = Combination(name, H=3, E=8, T=7)
    assert combining.contest(work).peers["numpy"]().note
    forms = combining.numpy_forms

    def halved(*given):
        return {form: lambda call=call: call() / 2 for form, call in forms(*given).items()}

    monkeypatch.setattr(combining, "numpy_forms", halved)
    with pytest.raises(AssertionError, match="error"):
        combining.contest(work).peers["numpy"]()


def test_a_combination_without_a_form_in_numpy_is_no_row():
    assert combining.numpy_forms("unheard of", np.zeros((1, 2, 3, 4)), {}) == {}


@pytest.mark.parametrize("module", ["torch", "onnxruntime", "onnx"])
def test_a_peer_that_is_not_installed_is_told(module, monkeypatch):
    found = contest.find_spec
    monkeypatch.setattr(
        contest, "find_spec", lambda name: None if name == module else found("json")
    )
    peer = "torch" if module == "torch" else "onnxruntime"
    (told,) = measure(Row("dense", SMALL, (Goal(peer, 1.0),)), QUICK)
    assert told.note == f"{module} is not installed"
    assert (told.measured, told.met, told.wrong) == (None, None, False)


def test_torch_is_refused_after_numbas_openmp_threads(monkeypatch):
    monkeypatch.setattr(contest, "find_spec", lambda name: object())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.omppool", object())
    with pytest.raises(AssertionError, match="torch must be imported before Numba's threads start"):
        contest.need("torch")


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


def shown(*results):
    out = io.StringIO()
    table = Table(Console(file=out, width=200, markup=False))
    for told in results:
        table.show(told)
    table.end(results, headline(results))
    return out.getvalue().splitlines()


def test_the_table_says_what_was_reached_missed_wrong_and_missing():
    lines = shown(
        replace(result(measured=2.5, low=2.4, high=2.6), stretch=3.0),
        result(measured=1.0, low=1.0, high=1.0),
        result(note="torch: error 1, allowed 0", wrong=True),
        result(note="torch is not installed"),
    )
    assert lines[0].split() == [
        "dense",
        "1,2",
        "torch",
        "2.500",
        "2.40",
        "to",
        "2.60",
        "1.2",
        "(3)",
        "yes",
    ]
    assert lines[1].split()[-1] == "NO"
    assert lines[2].endswith("WRONG torch: error 1, allowed 0")
    assert lines[3].split()[3:] == ["-", "1.2", "torch", "is", "not", "installed"]
    assert lines[4:] == ["1 of 2 targets reached", "geometric mean of the ratios to peers: 1.581"]


def test_without_a_peer_there_is_no_headline():
    assert shown(result(note="torch is not installed"))[-1].endswith("nothing to take it of")


def test_the_list_names_rows_and_targets_and_measures_nothing():
    done = CliRunner().invoke(command, ["bench", "--list", "--only", "decoding 1,32/8"])
    assert done.output.split(maxsplit=2)[2].strip() == "torch 5 (7), read 0.5 (0.7)"


def test_the_command_says_which_row_is_unknown():
    done = CliRunner().invoke(command, ["bench", "--only", "tinny"])
    assert done.exit_code == 2
    assert done.stderr.startswith("mhakit: only must be part of a row's name, got 'tinny'; ")


def test_the_command_starts_again_where_sides_would_not_run_alike(monkeypatch):
    started = []

    def call(arguments, env):
        started.append((arguments, env))
        return 1

    monkeypatch.setattr(process.subprocess, "call", call)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    options = ["bench", "--only", "tiny", "--only", "odd", "--quick", "--threads", "3"]
    assert CliRunner().invoke(command, options).exit_code == 1
    ((arguments, env),) = started
    assert arguments[1:] == ["-m", "mhakit.cli", "bench", "--only=tiny", "--only=odd", "--threads=3", "--quick"]  # fmt: skip
    assert process.settled(3, env)
    assert not process.settled(2, env)
    assert not process.settled(3, env | {"OPENBLAS_THREAD_TIMEOUT": "26"})


def test_figures_that_could_not_be_written_are_told_before_anything_is_measured(tmp_path):
    with pytest.raises(ParameterError, match=r"json must name a file in a directory that exists, got .*make the directory, or write to - for stdout"):  # fmt: skip
        report.run(ROWS, file=str(tmp_path / "none" / "figures.json"))


def test_a_row_is_measured_and_its_figures_are_json(tmp_path):
    """In a process of its own, as a user starts it; where torch is missing, it says so."""
    done = subprocess.run(
        [sys.executable, "-m", "mhakit.cli", "bench", "--quick", "--only=combine average", "--only=tiny 1,8*", "--threads=1", "--json=-"],
        capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert set(told) == {"machine", "quick", "rows", "geometric_mean"}
    machine = told["machine"]
    assert machine["threads"] == 1
    assert machine["versions"]["mhakit"] == mhakit.__version__
    assert machine["matmul_gflops"] > 0
    assert machine["read_gb_per_second"] > 0
    tiny, average = told["rows"]
    assert set(average) == {"family", "shape", "against", "target", "stretch", "at_most", "measured", "low", "high", "seconds", "peer_seconds", "turns", "note", "wrong", "met"}  # fmt: skip
    assert average["low"] <= average["measured"] <= average["high"]
    assert min(average["seconds"], average["peer_seconds"]) > 0
    assert average["turns"] >= QUICK.repeats
    assert tiny["against"] == "torch"
    assert (tiny["measured"] is None) == (tiny["note"] == "torch is not installed")
