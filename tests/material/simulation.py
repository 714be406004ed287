"""Whether this process runs the tests of backend ``cuda`` in Numba's simulator."""

import os

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
