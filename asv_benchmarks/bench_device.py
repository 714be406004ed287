"""On a GPU: attention of arrays that lie there, timed by events on its own clock."""

import numpy as np

import mhakit
from mhakit import backends
from mhakit.testing import Sizes, draw

REPEATS = 10


def on_device(arrays):
    """Copy arrays to the GPU; skip the row, as asv understands it, where there is none."""
    reason = backends.availability()["cuda"]
    if reason is not None:
        raise NotImplementedError(reason)
    from numba import cuda

    return [cuda.to_device(array) for array in arrays]


class OnDevice:
    """How long does a GPU take over attention, by length and dtype?"""

    params = ([512, 4096], ["float32", "float16"], [False, True])
    param_names = ("T", "dtype", "causal")
    unit = "ms"

    def setup(self, T, dtype, causal):
        sizes = Sizes(1, 16, 16, T, T, 128, 128)
        arrays = on_device(draw(sizes, np.dtype(dtype)))
        self.call = lambda: mhakit.attention(*arrays, causal=causal or None)
        self.call()

    def track_milliseconds(self, T, dtype, causal):
        from numba import cuda

        begin, end = cuda.event(), cuda.event()
        begin.record()
        for _ in range(REPEATS):
            self.call()
        end.record()
        end.synchronize()
        return cuda.event_elapsed_time(begin, end) / REPEATS
