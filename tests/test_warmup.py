"""Compiled kernels on disk: made once, made ahead, and made anew where they are damaged."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

from mhakit.backends.cpu import launch, warming


def test_first_calls_that_race_compile_once_and_a_fork_waits_for_them(tmp_path, run_fresh):
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
def test_a_damaged_file_of_the_cache_is_a_miss_and_is_written_anew(suffix, tmp_path, run_fresh):
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


def test_warmup_compiles_once_and_says_where(tmp_path, run_fresh):
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


WARM = """
    import sys
    import numpy as np, mhakit
    from mhakit.backends.cpu import launch, warming
    cached = [cached for *_, cached in warming.warm_up([np.float32])]
    x = np.random.default_rng(0).standard_normal((1, 2, 200, 64), dtype=np.float32)
    launch.SERIAL_BELOW = 0
    kept, decoded = mhakit.attention(x, x, x), mhakit.attention(x[:, :, :1], x, x)
    print(all(cached), "numba.np.arraymath" in sys.modules, end=" ")
    scored = mhakit.attention(x, x, x, score_mod=lambda score, b, h, t, s: score)
    print(*(np.allclose(a, b, atol=1e-5) for a, b in ((scored, kept), (decoded, kept[:, :, :1]))))
"""


def test_kernels_are_loaded_without_what_compiling_needs(run_fresh):
    """It would be most of what a process waits for; what compiles afterwards has it."""
    run_fresh(WARM)  # whatever of it is not cached yet is then
    assert run_fresh(WARM) == "True False True True"


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
