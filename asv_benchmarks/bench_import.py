"""Starting up: importing, the first call with kernels compiled before, and without."""

import os
import subprocess
import sys
import tempfile

FIRST_CALL = (
    "import numpy as np, mhakit; x = np.ones((1, 2, 8, 16), np.float32); mhakit.attention(x, x, x)"
)


class Import:
    """How long does a fresh process take that only imports?"""

    params = (["numpy", "mhakit", "numba"],)
    param_names = ("module",)

    def time_import(self, module):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


class FirstCall:
    """How long does a fresh process take to its first attention?"""

    params = (["kernels cached", "kernels compiled"],)
    param_names = ("cache",)
    timeout = 120
    number = 1
    repeat = (1, 3, 20.0)
    warmup_time = 0

    def setup(self, cache):
        self.folder = tempfile.TemporaryDirectory()
        self.environment = {**os.environ, "NUMBA_CACHE_DIR": self.folder.name}
        if cache == "kernels cached":
            self._run()

    def teardown(self, cache):
        self.folder.cleanup()

    def _run(self):
        subprocess.run([sys.executable, "-c", FIRST_CALL], check=True, env=self.environment)

    def time_first_call(self, cache):
        if cache == "kernels compiled":
            with tempfile.TemporaryDirectory(dir=self.folder.name) as empty:
                self.environment["NUMBA_CACHE_DIR"] = empty
                self._run()
        else:
            self._run()
