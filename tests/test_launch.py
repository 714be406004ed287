"""How kernels run: in several threads at once, after a fork, from a warm and from a stale cache."""

import gc
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import mhakit
from mhakit.backends.cpu import attention, decoding, launch
from mhakit.backends.cpu.call import CALL
from mhakit.testing import Sizes, assert_within, budget, draw

LARGE = Sizes(2, 4, 2, 200, 200, 32, 32)


def test_callers_in_several_threads_get_the_same_bits(form):
    arrays = draw(LARGE, np.float32)
    expected = mhakit.attention(*arrays, causal=True)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: mhakit.attention(*arrays, causal=True), range(40)))
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("kernel", "T"), [(attention, 5), (decoding, 2)])
def test_a_score_mod_compiles_no_kernel_but_its_own(kernel, T, monkeypatch):
    arrays = draw(Sizes(1, 2, 2, T, 7, 4, 4), np.float32)
    monkeypatch.setattr(kernel, "_run", None)  # has no form to be asked for
    kept = mhakit.attention(*arrays, score_mod=lambda score, b, h, t, s: score)
    assert_within(kept, budget("attention", *arrays)[0])


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_garbage_waits_while_a_kernel_compiles_and_no_longer(frozen, collects, fails, monkeypatch):
    collected = []

    class Compiling(launch.CFunc):
        def compile(self):
            collected.append(gc.isenabled())
            if fails:
                raise KeyboardInterrupt
            super().compile()

    def enter(calls):
        pass

    monkeypatch.setattr(launch, "CFunc", Compiling)
    (gc.enable if collects else gc.disable)()
    if frozen:
        gc.freeze()
    try:
        with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
            launch.Compiled(enter, CALL[np.dtype(np.float32)], cached=False)
        assert (collected, gc.isenabled()) == ([False], collects)
        assert (gc.get_freeze_count() > 0) == frozen
    finally:
        gc.unfreeze()
        gc.enable()


MISSES = """
    import numpy as np, mhakit, json
    from mhakit.backends.cpu import attention
    x = np.ones((1, 1, 8, 8), np.float32)
    mhakit.attention(x, x, x)
    hits = attention._run.of(np.dtype(np.float32)).entry.cache_hits
    print(1 - hits, hits)
"""


def test_an_edit_anywhere_in_the_kernels_sources_is_a_miss(tmp_path, run_fresh):
    package = tmp_path / "mhakit"
    shutil.copytree(
        Path(mhakit.__file__).parent, package,
        ignore=shutil.ignore_patterns("__pycache__", "sample"),
    )  # fmt: skip
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    assert run_fresh(MISSES, path=tmp_path, **environment) == "1 0"
    assert run_fresh(MISSES, path=tmp_path, **environment) == "0 1"
    edited = package / "backends" / "cpu" / "simd" / "columns.py"  # not the kernel's own file
    edited.write_text(edited.read_text() + "\n# edited\n")
    assert run_fresh(MISSES, path=tmp_path, **environment) == "1 0"


@pytest.mark.parametrize("width", [16, 32])
def test_narrower_registers_give_the_same_bits(width, tmp_path, run_fresh):
    code = """
        import sys, numpy as np, mhakit
        from mhakit.backends.cpu import projection
        from mhakit.backends.cpu.simd import VECTOR_BYTES
        from mhakit.testing import Sizes, draw
        for dtype in (np.float32, np.float64):
            arrays = draw(Sizes(1, 4, 2, 50, 90, 20, 12), dtype)
            mask = np.random.default_rng(1).random((50, 90)) < 0.7
            few = draw(Sizes(1, 4, 2, 3, 600, 20, 12), dtype)  # its order is the registers' own
            exact = mhakit.attention(*few, causal="bottom_right", backend="reference")
            assert np.allclose(mhakit.attention(*few, causal="bottom_right"), exact, atol=1e-6)
            for keywords in ({"causal": "bottom_right"}, {"mask": mask, "softcap": 3.0}):
                output, lse = mhakit.attention(*arrays, **keywords, return_lse=True)
                sys.stdout.write((output.tobytes() + lse.tobytes()).hex())
            projected = np.empty((64, 150), dtype)
            weight = np.random.default_rng(2).standard_normal((150, 150)).astype(dtype)
            projection.project(weight.T[:64], weight.T, None, projected)
            sys.stdout.write(projected.tobytes().hex())
        print("", VECTOR_BYTES)
    """
    bits, _ = run_fresh(code).split()
    narrow, used = run_fresh(
        code, MHAKIT_VECTOR_BYTES=str(width), NUMBA_CACHE_DIR=str(tmp_path)
    ).split()
    assert int(used) == width
    assert narrow == bits


def test_openmp_is_left_as_it_was_for_those_who_share_it(run_fresh):
    """Numba turns nested regions on; torch, imported later, is then four times slower."""
    printed = run_fresh(
        """
        import ctypes, os, numba, numpy as np, mhakit
        from mhakit.backends.cpu import launch
        launch.SERIAL_BELOW = 0
        x = np.ones((1, 2, 64, 16), np.float32)
        mhakit.attention(x, x, x)
        runtime = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        print(numba.threading_layer(), runtime.omp_get_max_active_levels())
        """,
        NUMBA_THREADING_LAYER="omp",
    )
    assert printed == "omp 1"
