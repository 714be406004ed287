"""Callers in threads, forked children and pools: the same bits, and no crowd of threads."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import mhakit

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
def test_threads_and_forked_children_get_the_same_bits_under_each_layer(layer, run_fresh):
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


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_callers_in_threads_share_the_threads_of_one(run_fresh):
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
    import ctypes, multiprocessing, os, signal, time, warnings
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

    def tasks_left(most):  # threads of an ended caller's team end after it: what stays is waited for
        for _ in range(200):
            if tasks() <= most:
                break
            time.sleep(0.05)
        return tasks()

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
    assert tasks() <= alone + CALLERS * numba.get_num_threads(), (alone, tasks())
    # some layers keep a team of threads for each caller; ended callers leave none behind
    most = max(after_one, alone) + numba.get_num_threads()
    assert tasks_left(most) <= most, (alone, after_one, tasks())
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
def test_kernels_and_blas_in_a_crowd_of_callers_are_right_and_start_no_crowd_of_threads(
    layer, run_fresh
):
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
