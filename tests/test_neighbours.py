"""How a call behaves beside others: it hears Ctrl-C, and asks for no more than there is."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import mhakit
from mhakit.backends.cpu import launch, slices
from mhakit.errors import OutOfMemory
from mhakit.testing import Sizes, draw


def run_fresh(code, *, timeout=120, **environment):
    """Run code in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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


@pytest.mark.parametrize("name", ["dense", "causal", "mask", "window", "sinks", "score_mod"])
def test_an_item_in_slices_has_the_bits_of_one_in_one_go(name, monkeypatch):
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    arrays = draw(Sizes(2, 4, 2, 70, 1000, 24, 20), np.float32)
    whole = mhakit.attention(*arrays, **keywords_of(name), return_lse=True)
    counts = []
    run = slices._launch
    monkeypatch.setattr(slices, "_launch", lambda *given: counts.append(0) or run(*given))
    for slice_of in (1.0, 1e5):
        monkeypatch.setattr(slices, "SLICE", slice_of)
        counts.clear()
        parts = mhakit.attention(*arrays, **keywords_of(name), return_lse=True)
        for part, given in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(part, given)
        if slice_of == 1.0:  # one block of 64 sources at a time, of an item or one a thread
            assert len(counts) >= 12 * 16 / launch.threads()


INTERRUPTED = """
    import signal, threading, numpy as np, mhakit
    from mhakit.backends.cpu import launch, slices
    launch._forked = {forked}  # to compile a user's function once, not for all threads too
    one = np.ones((1, 1, 1, 1), np.float32)
    few, many = np.broadcast_to(one, (1, 2, 64, 64)), np.broadcast_to(one, (1, 2, {S}, 64))
    mhakit.attention(few, few, few{more})
    launches, run = [], slices._launch
    slices._launch = lambda *given: launches.append(0) or run(*given)
    threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
    try:
        mhakit.attention({query}, many, many{more})
        print("ended")
    except KeyboardInterrupt:
        print("heard", len(launches) > 1)
    few = mhakit.attention(few, few, few)  # and the next call finds all in order
    assert (few == 1).all()
"""


@pytest.mark.parametrize(
    ("query", "S", "more"),
    [("few", 2**30, ""), ("many", 2**17, ""), ("few", 2**30, ", score_mod=mod")],
    ids=["one long item", "many items", "a user's function"],
)
def test_ctrl_c_is_heard_long_before_a_call_ends(query, S, more):
    # to its end a call takes minutes, and so would one of its items
    code = textwrap.dedent(INTERRUPTED).format(query=query, S=S, more=more, forked=bool(more))
    mod = "def mod(score, b, h, t, s):\n    return score * score\n"
    assert run_fresh(mod + code, timeout=60) == "heard True"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("T", [8, 2])
def test_scratch_that_does_not_fit_is_told(T):
    one = np.zeros((1, 1, 1, 1), np.float32)
    query, key = (np.broadcast_to(one, (1, 1, n, 2**40)) for n in (T, 5))
    with pytest.raises(OutOfMemory, match=r"scratch .* must fit in memory, got .*; ask for fewer"):
        mhakit.attention(query, key, np.broadcast_to(one, (1, 1, 5, 3)))


def test_a_worker_without_scratch_is_told_though_another_has_some(monkeypatch):
    monkeypatch.setattr(launch, "SERIAL_BELOW", 0)
    monkeypatch.setattr(launch.Compiled, "run", lambda self, calls, alone: end_some(calls))

    def end_some(calls):
        calls["ended"] = calls["workers"] - 1

    arrays = draw(Sizes(1, 2, 2, 8, 8, 4, 4), np.float32)
    with pytest.raises(OutOfMemory, match="scratch"):
        mhakit.attention(*arrays)
