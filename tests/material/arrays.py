"""Arrays of random numbers, and what is put into one to see where it comes out again."""

import numpy as np

POISON = {"NaN": np.nan, "inf": np.inf, "-inf": -np.inf}


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
