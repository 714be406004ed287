"""The tests of every backend, run for ``cuda`` by Numba's simulator, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [
    "contract", "combine", "catalogue", "device_arrays",
    "test_attention.py", "test_keywords.py", "test_errors.py", "test_score_mod.py",
]  # fmt: skip


@pytest.mark.skipif(
    os.environ.get("NUMBA_ENABLE_CUDASIM") == "1", reason="this is the simulator's process"
)
def test_what_holds_for_every_backend_holds_for_cuda_in_the_simulator():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES],
        cwd=HERE, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", done.stdout.splitlines()[-1])
    assert passed is not None
    assert int(passed[1]) >= 400, "a file that lost its parameter tests nothing"
