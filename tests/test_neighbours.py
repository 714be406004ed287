"""How a call behaves beside others: threads, forks, pools, Ctrl-C, and a cache on disk."""

import os
import re
import subprocess
import sys
import textwrap
from itertools import product

import numpy as np
import pytest

import mhakit
from mhakit.api.attending import attention_and_weights
from mhakit.backends import select
from mhakit.backends.cpu import launch, slices, softmax, warming
from mhakit.errors import OutOfMemory
from mhakit.plugin_api import CombinationPlan
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


def test_ctrl_c_is_heard_long_before_a_call_of_any_kernel_ends():
    lines = run_fresh(INTERRUPTED, timeout=100).splitlines()
    assert len(lines) == 10
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


CROWD = """
    import os, signal, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np, numba, mhakit
    from mhakit.backends.cpu import launch
    from mhakit.testing import Sizes, draw
    launch.SERIAL_BELOW = 0
    signal.alarm(60)  # nothing here may hang, in a child neither
    cases = [
        (draw(Sizes(2, 4, 2, T, T + 9, 16, 8), dtype), {{"causal": causal}})
        for T in (1, 5, 33, 130) for dtype in (np.float32, np.float64)
        for causal in (False, "bottom_right")
    ]

    def attend(case):
        return mhakit.attention(*case[0], **case[1])

    def same(results):
        return all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))

    def child_is_right():
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if same(map(attend, cases)) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    expected = [attend(case) for case in cases]
    with ThreadPoolExecutor(8) as pool:
        assert same(list(pool.map(attend, cases * 8))[-len(cases):])
    assert child_is_right()
    long = draw(Sizes(1, 2, 2, 4000, 4000, 64, 64), np.float32)
    inside = threading.Thread(target=mhakit.attention, args=long)
    inside.start()
    while launch._region.acquire(blocking=False):  # until the thread is in a kernel
        launch._region.release()
    assert child_is_right()
    inside.join()
    assert same(map(attend, cases))
    print(numba.threading_layer())
"""


def require(layer):
    """Skip where Numba cannot load a threading layer."""
    if layer == "tbb":
        pytest.importorskip(
            "numba.np.ufunc.tbbpool", reason="no TBB library here", exc_type=ImportError
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
def test_threads_and_forked_children_get_the_same_bits_under_each_layer(layer):
    require(layer)
    assert run_fresh(textwrap.dedent(CROWD).format(), NUMBA_THREADING_LAYER=layer) == layer


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
def test_a_process_pool_gets_the_same_bits(method, layer, tmp_path):
    require(layer)
    script = tmp_path / "pooled.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import numpy as np, mhakit
        from mhakit.backends.cpu import launch
        launch.SERIAL_BELOW = 0

        def attend(seed):
            x = np.random.default_rng(seed).standard_normal((1, 4, 90, 16), np.float32)
            return mhakit.attention(x, x, x)

        if __name__ == "__main__":
            expected = [attend(seed) for seed in range(6)]
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                results = pool.map_async(attend, range(6)).get(timeout=60)
            print(np.array_equal(results, expected))
    """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "NUMBA_THREADING_LAYER": layer},
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr


def test_first_calls_that_race_compile_once_and_a_fork_waits_for_them(tmp_path):
    printed = run_fresh(
        """
        import os, signal, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from mhakit.backends import select
        cpu = select("cpu")
        signal.alarm(60)
        scores = np.random.default_rng(5).standard_normal((1, 2, 40, 30), np.float32)
        gate = threading.Barrier(9)

        def normalize(_=0):
            out = np.empty_like(scores)
            cpu.normalize(scores, None, out)
            return out

        def first(_):
            gate.wait()
            return normalize()

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(first, i) for i in range(8)]
            gate.wait()
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                os._exit(0 if abs(normalize().sum() - 80) < 1e-3 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            results = [future.result() for future in futures]
        assert abs(results[0].sum() - 80) < 1e-3
        print(all(np.array_equal(result, results[0]) for result in results))
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert printed == "True"


NORMALIZE = """
    import warnings, numpy as np
    from mhakit.backends import select
    from mhakit.backends.cpu import launch, softmax
    scores = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        select("cpu").normalize(scores, None, scores)
    print(abs(scores.sum() - 2) < 1e-6, softmax._run.of(scores.dtype).entry.cache_hits)
    print(*(warning.message for warning in told))
"""


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def empty(data):
    return b""


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_file_of_the_cache_is_a_miss_and_is_written_anew(suffix, tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run_fresh(NORMALIZE, **environment) == "True 0"
    (path,) = tmp_path.glob(f"**/softmax._enter-*.{suffix}")
    for damage in (cut, flip, empty):
        path.write_bytes(damage(path.read_bytes()))
        assert run_fresh(NORMALIZE, **environment) == "True 0"
    assert run_fresh(NORMALIZE, **environment) == "True 1"


def test_a_cache_that_cannot_be_kept_is_told_and_computes(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file, no folder")
    environment = {
        "NUMBA_CACHE_DIR": str(taken), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
    }  # fmt: skip
    code = "import warnings; warnings.simplefilter('always')\n" + textwrap.dedent(NORMALIZE)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.stdout.strip() == "True 0", done.stderr
    assert done.stderr.count("the folder of compiled kernels must be writable, got none") == 1
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in done.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_callers_in_threads_share_the_threads_of_one():
    printed = run_fresh(
        """
        import os, threading
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np, numba, mhakit
        before = {name: value for name, value in os.environ.items()}
        x = np.ones((1, 2, 700, 64), np.float32)
        mhakit.attention(x, x, x)
        callers, most, done = 4, [0], threading.Event()

        def count():
            while not done.is_set():
                states = []
                for task in os.listdir("/proc/self/task"):
                    try:
                        with open(f"/proc/self/task/{task}/stat") as file:
                            states.append(file.read().rpartition(")")[2].split()[0])
                    except OSError:
                        pass
                most[0] = max(most[0], states.count("R") - 1)  # this one runs too

        watcher = threading.Thread(target=count)
        watcher.start()
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(lambda _: mhakit.attention(x, x, x), range(60)))
        done.set()
        watcher.join()
        assert 1 <= most[0] <= numba.get_num_threads() + callers, most
        assert len(os.listdir("/proc/self/task")) < 40
        assert dict(os.environ) == before
        print(numba.get_num_threads())
        """,
        NUMBA_NUM_THREADS="2", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive",
    )  # fmt: skip
    assert printed == "2"


MIXED = """
    import ctypes, multiprocessing, os, signal, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np, numba, mhakit
    from mhakit.backends.cpu import launch
    from mhakit.testing import Sizes, draw
    launch.SERIAL_BELOW = 0
    signal.alarm(100)  # nothing here may hang, in a child neither
    CALLERS = 6

    def blas_threads():  # as many as OpenBLAS says, for every copy of it that is loaded
        names = [f"{a}openblas_get_num_threads{b}" for a in ("scipy_", "") for b in ("64_", "")]
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "openblas" in line}
        libraries = [ctypes.CDLL(path) for path in sorted(paths)]
        return [getattr(lib, name)() for lib in libraries for name in names if hasattr(lib, name)]

    def tasks():
        return len(os.listdir("/proc/self/task"))

    arrays = draw(Sizes(2, 4, 2, 90, 70, 16, 8), np.float32)
    few = draw(Sizes(2, 4, 2, 2, 1500, 16, 8), np.float32)
    heads = mhakit.attention(*arrays)
    words = np.random.default_rng(4).standard_normal((3, 200, 64), np.float32)
    learned = {"weight": words[0, :8], "bias": words[0, 0]}
    layer = mhakit.MultiHeadAttention(64, 4, dtype=np.float32, rng=1)
    calls = [
        lambda: layer(words),
        lambda: mhakit.attention(*arrays, causal="bottom_right"),
        lambda: mhakit.attention(*few),
        lambda: mhakit.attention_weights(*arrays[:2]),
        lambda: mhakit.combine(heads, "average", learned),
    ]

    def call(i):
        return calls[i % len(calls)]()

    def right(results):
        for i, result in enumerate(results):
            expected = answers[i % len(calls)]
            # BLAS adds up to 64 products in an order of its own; kernels have one order
            projected = i % len(calls) in (0, len(calls) - 1)
            most = 64 * np.finfo(np.float32).eps * abs(expected).max() if projected else 0
            if not abs(result - expected).max() <= most:
                return False
        return True

    def crowd():
        with ThreadPoolExecutor(CALLERS) as pool:
            return right(pool.map(call, range(20 * len(calls))))

    answers = [call(i) for i in range(len(calls))]
    before = blas_threads(), numba.get_num_threads(), dict(os.environ)
    assert before[0], "no OpenBLAS"
    alone = tasks()
    assert crowd()
    after_one = tasks()
    assert crowd() and crowd()
    # some layers keep a team of threads for each caller; ended callers leave none behind
    assert tasks() <= max(after_one, alone) + numba.get_num_threads(), (alone, after_one, tasks())
    assert tasks() <= alone + CALLERS * numba.get_num_threads(), (alone, tasks())
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        os._exit(0 if right(map(call, range(len(calls)))) and crowd() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert right(pool.map_async(call, range(2 * len(calls))).get(timeout=60))
    assert crowd()
    assert (blas_threads(), numba.get_num_threads(), dict(os.environ)) == before
    print(numba.threading_layer())
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
@pytest.mark.parametrize("layer", ["omp", "workqueue", "tbb"])
def test_kernels_and_blas_in_a_crowd_of_callers_are_right_and_start_no_crowd_of_threads(layer):
    require(layer)
    assert run_fresh(MIXED, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2") == layer


def test_a_layer_leaves_threads_and_environment_as_they_were():
    numba = pytest.importorskip("numba")
    layer = mhakit.MultiHeadAttention(16, 4, rng=1)
    before = dict(os.environ), numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        layer(np.ones((2, 50, 16), np.float32))
        assert (dict(os.environ), numba.get_num_threads()) == (before[0], 1)
    finally:
        numba.set_num_threads(before[1])


def test_warmup_compiles_once_and_says_where(tmp_path):
    code = """
        from mhakit.backends.cpu import warming
        from mhakit.cli.commands import command
        warming.WORKERS = {"softmax": warming.WORKERS["softmax"]}  # all would take a minute
        command(["warmup", "--dtype", "float32"])
    """
    for state in (r" s$", r"cached$"):
        lines = run_fresh(code, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
        assert [line.split()[0] for line in lines[:2]] == ["softmax", "threads"]
        assert all(re.search(state, line) for line in lines[:2]), lines
        assert f"kernels lie in {tmp_path}" in lines[2]


def test_warmup_knows_every_kernel():
    modules = [module for name, module in sys.modules.items() if "mhakit.backends.cpu." in name]
    made = {
        id(thing)
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, launch.Worker)
    }
    assert {id(kernel) for kernel in warming.WORKERS.values()} == made


def test_warmup_names_a_folder_that_cannot_be_written(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file, no folder")
    command = [sys.executable, "-m", "mhakit.cli", "warmup"]
    for more, rule in (
        ({}, "NUMBA_CACHE_DIR must be a folder that can be written, got .*; set it to one that"),
        (
            {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
            "the folder of compiled kernels must be writable, got .*; set NUMBA_CACHE_DIR to a",
        ),
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "NUMBA_CACHE_DIR": str(taken), **more},
        )  # fmt: skip
        assert done.returncode == 2
        assert re.search(rule, done.stderr)
