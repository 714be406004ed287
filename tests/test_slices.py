"""Long work in slices: the same bits, Ctrl-C heard in between, and memory that is refused."""

from itertools import product

import numpy as np
import pytest

import mhakit
from mhakit.api.attending import attention_and_weights
from mhakit.backends import select
from mhakit.backends.cpu import launch, slices, softmax
from mhakit.errors import OutOfMemory
from mhakit.plugin_api import CombinationPlan
from mhakit.testing import Sizes, draw


def fades(score, b, h, t, s):
    return score - 0.1 * abs(t - s)


def keywords_of(name):
    generator = np.random.default_rng(11)
    return {
        "dense": {},
        "causal": {"causal": "bottom_right"},
        "mask": {"mask": generator.random((70, 1000)) < 0.5, "softcap": 2.0},
        "window": {"window": (300, 40), "query_offset": 400},
        "sinks": {"sinks": generator.standard_normal(4), "key_lengths": np.array([13, 700])},
        "score_mod": {"score_mod": fades},
    }[name]


def results_of(verb, name):
    """Return what a verb makes of one problem."""
    keywords = keywords_of(name)
    query, key, value = draw(Sizes(2, 4, 2, 70, 1000, 24, 20), np.float32)
    if verb == "attention":
        return mhakit.attention(query, key, value, **keywords, return_lse=True)
    if verb == "scores":
        keywords.pop("sinks", None)
        return (mhakit.attention_scores(query, key, **keywords),)
    few = mhakit.attention_weights(query, key, **keywords, queries=[3, 69])
    return (*attention_and_weights(query, key, value, **keywords), few)


def others_of(verb):
    """Return what a verb makes that takes no keywords of attention."""
    generator = np.random.default_rng(12)
    cpu = select("cpu")
    if verb == "softmax":
        scores = generator.standard_normal((1, 2, 2, 2 * softmax.BLOCK + 77), np.float32)
        scores[..., :99] = -np.inf
        return mhakit.softmax(scores), mhakit.softmax(scores, sinks=np.array([1.0, 30.0]))
    if verb == "weighted sum":
        weights = generator.standard_normal((2, 4, 70, 1000), np.float32)
        value = draw(Sizes(2, 4, 2, 70, 1000, 24, 20), np.float32)[2]
        out = np.empty((2, 4, 70, 20), np.float32)
        cpu.weigh_values(weights, value, out)
        return (out,)
    heads = generator.standard_normal((2, 4, 70, 20), np.float32)
    if verb == "merge":
        lse = generator.standard_normal((2, 2, 4, 70), np.float32)
        return mhakit.merge_attention((heads, lse[0]), (heads[::-1], lse[1]))
    factors = generator.standard_normal((4, 70, 1), np.float32)
    plan = CombinationPlan(2, None, None, factors, "max")
    out = np.empty((2, 70, 40), np.float32)
    combined = cpu.combine_heads(heads, plan, out)
    d_heads, d_plan = cpu.combine_heads_vjp(heads, plan, combined, out, True)
    return out, d_heads, d_plan.head_weights


def assert_same_in_slices(made, fewest, monkeypatch):
    """Assert that what is made has the same bits in however many launches."""
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    whole = made()
    counts = []
    run = slices._launch
    monkeypatch.setattr(slices, "_launch", lambda *given: counts.append(0) or run(*given))
    for slice_of in (1.0, 1e5):
        monkeypatch.setattr(slices, "SLICE", slice_of)
        counts.clear()
        for part, given in zip(made(), whole, strict=True):
            np.testing.assert_array_equal(part, given)
        if slice_of == 1.0:  # one block at a time, of an item or one a thread
            assert len(counts) >= fewest / launch.threads()


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *product(
            ("attention", "scores", "weights"), ("dense", "causal", "mask", "window", "sinks")
        ),
        ("attention", "score_mod"),
    ],
)
def test_an_item_in_slices_has_the_bits_of_one_in_one_go(verb, name, monkeypatch):
    assert_same_in_slices(lambda: results_of(verb, name), 8 * 16, monkeypatch)


@pytest.mark.parametrize(
    ("verb", "fewest"),
    [("softmax", 2 * 4 * 3 * 3), ("weighted sum", 8 * 16), ("merge", 70), ("combination", 64)],
)
def test_other_verbs_in_slices_give_the_bits_of_one_launch(verb, fewest, monkeypatch):
    assert_same_in_slices(lambda: others_of(verb), fewest, monkeypatch)


INTERRUPTED = """
    import signal, threading, numpy as np, mhakit
    from mhakit.backends import select
    from mhakit.backends.cpu import slices
    from mhakit.plugin_api import CombinationPlan
    from mhakit.validation.attention import as_problem
    cpu = select("cpu")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def one(*shape):  # of any size, in a few bytes
        return np.broadcast_to(np.ones((1,) * len(shape), np.float32), shape)

    def room(*shape):  # to be written, all to the same place
        return np.lib.stride_tricks.as_strided(np.empty(1, np.float32), shape, (0,) * len(shape))

    def mod(score, b, h, t, s):
        return score * score

    def attend(S, T=64, **keywords):
        mhakit.attention(one(1, 2, T, 64), one(1, 2, S, 64), one(1, 2, S, 64), **keywords)

    def asked(S):
        return as_problem(one(1, 1, 1, 16), one(1, 1, S, 16), None, needs_value=False)[0]

    def score(S):
        cpu.score(asked(S), room(1, 1, 1, S))

    def weigh(S):
        first = np.zeros(1, np.int64)
        cpu.weigh(asked(S), first, first, room(1, 1, 1, S))

    def merge(T):
        part = one(1, 1, T, 64), one(1, 1, T)
        cpu.merge([part[0]] * 2, [part[1]] * 2, room(1, 1, T, 64), room(1, 1, T))

    def project(K):
        cpu.project(one(64, K), one(K, 256), None, np.empty((64, 256), np.float32))

    def combine(T, pulls):
        line = np.ones(64, np.float32)
        heads = np.lib.stride_tricks.as_strided(line, (1, 64, T, 64), (0, 0, 0, 4))
        plan = CombinationPlan(1, None, None, np.float32(0.5), "max")
        if pulls:
            cpu.combine_heads_vjp(heads, plan, one(T, 64), one(1, T, 64), True)
        else:
            cpu.combine_heads(heads, plan, room(1, T, 64))

    calls = {  # what is small runs at once, what is long takes seconds or minutes to its end
        "one long item": (attend, 2**30),
        "many items": (lambda S: attend(S, S), 2**17),
        "a user's function": (lambda S: attend(S, score_mod=mod), 2**30),
        "scores": (score, 2**31),
        "weights": (weigh, 2**30),
        "softmax": (lambda S: cpu.normalize(one(1, 1, 1, S), None, room(1, 1, 1, S)), 2**31),
        "weighted sum": (
            lambda S: cpu.weigh_values(one(1, 1, 1, S), one(1, 1, S, 64), room(1, 1, 1, 64)), 2**30
        ),
        "merge": (merge, 2**30),
        "projection": (project, 2**25),
        "combination": (lambda T: combine(T, False), 2**24),
        "its gradient": (lambda T: combine(T, True), 2**19),
    }
    launches, run = [], slices._launch

    def launched(*given):
        launches.append(0)
        if len(launches) == 2:
            threading.Timer(0.05, lambda: signal.raise_signal(signal.SIGINT)).start()
        run(*given)

    for name, (call, long) in calls.items():
        slices._launch = run
        call(64)
        launches.clear()
        slices._launch = launched
        try:
            call(long)
            print(name, "ended", sep=": ")
        except KeyboardInterrupt:
            print(name, "heard", sep=": ")
    slices._launch = run
    few = mhakit.attention(one(1, 2, 64, 64), one(1, 2, 64, 64), one(1, 2, 64, 64))
    assert (few == 1).all()  # the next call finds all in order
"""


def test_ctrl_c_is_heard_long_before_a_call_of_any_kernel_ends(run_fresh):
    lines = run_fresh(INTERRUPTED, timeout=100).splitlines()
    assert len(lines) == 11
    assert [line for line in lines if not line.endswith(": heard")] == []


REFUSED = r"scratch .* must fit in memory, got .*; ask for fewer"


@pytest.mark.parametrize("D", [2**40, 2**52])
@pytest.mark.parametrize("T", [8, 2])
def test_scratch_that_does_not_fit_is_told(T, D, capfd):
    one = np.zeros((1, 1, 1, 1), np.float32)
    query, key = (np.broadcast_to(one, (1, 1, n, D)) for n in (T, 5))
    for _ in range(2):
        with pytest.raises(OutOfMemory, match=REFUSED):
            mhakit.attention(query, key, np.broadcast_to(one, (1, 1, 5, 3)))
    assert capfd.readouterr() == ("", "")  # by Numba neither, which prints what a kernel raises


def test_what_a_long_item_keeps_and_cannot_have_is_told(capfd):
    one = np.zeros((1, 1, 1, 1), np.float32)
    scores = np.broadcast_to(one, (1, 1, 1, 2**50))
    with pytest.raises(OutOfMemory, match=REFUSED):
        select("cpu").normalize(scores, None, scores)
    assert capfd.readouterr() == ("", "")


def test_a_worker_without_scratch_is_told_though_another_has_some(monkeypatch):
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    monkeypatch.setattr(launch.Compiled, "run", lambda self, calls, alone: end_some(calls))

    def end_some(calls):
        calls["ended"] = calls["workers"] - 1

    arrays = draw(Sizes(1, 2, 2, 8, 8, 4, 4), np.float32)
    with pytest.raises(OutOfMemory, match="scratch"):
        mhakit.attention(*arrays)
