"""What the tests share: dtypes by name, every backend, and both forms of every CPU kernel.

With NUMBA_ENABLE_CUDASIM=1 the tests are those of backend ``cuda`` in Numba's simulator, at sizes
for it; Numba reads the variable when it is imported, so it holds for a whole process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import ml_dtypes
import numpy as np
import pytest

from mhakit import backends

pytest.register_assert_rewrite("material")  # what fails there is told as in a test

from material.places import ROOT  # noqa: E402
from material.simulation import SIMULATED  # noqa: E402

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

BACKENDS = ("backend", "kernels")
WHY_NO_GPU = None if SIMULATED else backends.availability()["cuda"]


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: runs on a CUDA device")
    if SIMULATED:
        # a thread of a kernel warns where a device computes NaN or inf in silence
        config.addinivalue_line("filterwarnings", "ignore:.*encountered in:RuntimeWarning")


def pytest_collection_modifyitems(config, items):
    """Choose what runs in the simulator, or else leave out what runs nowhere else."""
    left_out = [
        item
        for item in items
        if (not _is_of_cuda(item) if SIMULATED else "simulator" in _fixtures_of(item))
    ]
    config.hook.pytest_deselected(items=left_out)
    unwanted = set(left_out)
    items[:] = [item for item in items if item not in unwanted]


def _fixtures_of(item):
    return getattr(item, "fixturenames", ())


def _is_of_cuda(item):
    if item.get_closest_marker("gpu") is not None:
        return False
    told = getattr(item, "callspec", None)
    parameters = {} if told is None else told.params
    return "simulator" in _fixtures_of(item) or "cuda" in (
        parameters.get(name) for name in BACKENDS
    )


@pytest.fixture(params=list(DTYPES))
def dtype(request):
    """Each dtype that attention takes."""
    return DTYPES[request.param]


ON_A_GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(WHY_NO_GPU is not None, reason=str(WHY_NO_GPU))],
)


@pytest.fixture(params=["cuda"] if SIMULATED else ["cpu", "reference", ON_A_GPU])
def backend(request):
    """Each backend that runs on this machine."""
    if SIMULATED:
        request.getfixturevalue("simulator")
    return request.param


@pytest.fixture(params=["cuda"] if SIMULATED else ["cpu", ON_A_GPU])
def kernels(request):
    """Each backend of compiled kernels that runs on this machine."""
    if SIMULATED:
        request.getfixturevalue("simulator")
    return request.param


@pytest.fixture
def simulator(monkeypatch):
    """Numba's simulator, with blocks of few threads and what it lacks of arrays in and out."""
    from numba.cuda.simulator import kernel

    from mhakit.backends import cuda
    from mhakit.backends.cuda import blocks

    assert cuda.why_absent() is None
    monkeypatch.setattr(blocks, "SHAPE", blocks.Shape(2, 8, 2, 8, 16))
    monkeypatch.setattr(kernel.BlockManager, "run", _run_block)
    return cuda


def _run_block(manager, place, *arguments):
    """Run the threads of one block; Numba's own waits for them by polling, ten times as long."""
    from numba.cuda.simulator.kernel import BlockThread

    size = manager._block_dim
    barrier = threading.Barrier(int(np.prod(size)), timeout=60)

    def work():
        try:
            manager._f(*arguments)
        except BaseException:
            barrier.abort()
            raise

    threads = [BlockThread(work, manager, place, at, manager._debug) for at in np.ndindex(*size)]
    for thread in threads:
        thread.syncthreads = barrier.wait
        thread.start()
    for thread in threads:
        thread.join()
    failures = [thread.exception for thread in threads if thread.exception]
    failures.sort(key=lambda failure: isinstance(failure[0], threading.BrokenBarrierError))
    for error, trace in failures[:1]:
        raise error.with_traceback(trace)


@pytest.fixture
def from_the_checkout(monkeypatch):
    """The checkout on the path, where asv finds the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(params=["serial", "parallel"])
def form(request, monkeypatch):
    """Each compiled form of the CPU kernels, whatever the size of the problem."""
    from mhakit.backends.cpu import launch

    limit = 0 if request.param == "parallel" else float("inf")
    monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
    return request.param


@pytest.fixture
def run_fresh():
    """Run code in a process of its own and return what it printed."""

    def run(code, *, path=None, timeout=300, **environment):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True, text=True, timeout=timeout, check=False, cwd=path,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
