"""Arrays of random numbers, and what is put into one to see where it comes out again."""

import numpy as np

POISON = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf}


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def unaligned(array):
    """Return the same numbers a byte off the place that their dtype asks for."""
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view
