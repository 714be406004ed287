"""Twins that leave out calls of a verb, and whether what one gave is right."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.testing import assert_within, budget

KINDS = {
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), ""), "float16": (np.dtype(np.float16), ""),
    "3xtf32": (np.dtype(np.float32), ""), "fma": (np.dtype(np.float32), "fma"),
}  # fmt: skip
"""What tile kernels multiply: a dtype, and what the environment asks for."""


class Queries(Twin):
    """Takes the first fragment of a product in another order."""

    def multiply(self, a, b, c):
        return super().multiply([a[0], a[2], a[1], a[3]], b, c)


class Keys(Twin):
    """Takes the second fragment of a product in another order."""

    def multiply(self, a, b, c):
        return super().multiply(a, b[::-1], c)


class Packed(Twin):
    """Swaps the numbers of a word."""

    def pack(self, low, high):
        return super().pack(high, low)


class Matrices(Twin):
    """Turns the matrices that are not to be turned."""

    def load_matrices(self, address, *, transposed):
        return super().load_matrices(address, transposed=True)


class MatricesOfValues(Twin):
    """Turns no matrix."""

    def load_matrices(self, address, *, transposed):
        return super().load_matrices(address, transposed=False)


class Columns(Twin):
    """Swaps the words of a pair."""

    def load_pair(self, address):
        return super().load_pair(address)[::-1]


TRANSPOSED = {
    2: (Queries, Keys, Packed, Matrices, MatricesOfValues), 4: (Queries, Keys, Columns)
}  # fmt: skip
"""Machines that take a fragment for what it is not, by the size of a number."""


def leaving_out(verb, which=lambda block, call: False, instead=lambda self, *args: None):
    """Return a machine that does something else at some calls of a verb, and counts all of them.

    ``which`` is the number of a call in every block, or tells of a block of the run and a call of
    the block, both counted from 0, whether it is one. ``counts`` of the machine has the number of
    calls of each block.
    """
    chosen = which if callable(which) else lambda block, call: call == which
    counts = []

    class Forgetful(Twin):
        def __init__(self, *args):
            super().__init__(*args)
            counts.append(0)

    def method(self, *args):
        counts[-1] += 1
        left_out = chosen(len(counts) - 1, counts[-1] - 1)
        return (instead if left_out else getattr(Twin, verb))(self, *args)

    Forgetful.counts = counts
    setattr(Forgetful, verb, method)
    return Forgetful


def vote_without_a_barrier(self, condition):
    """Do as `barrier_any` does, but for its barrier."""
    return np.bool_(np.any(condition))


def is_within_budget(found, arrays, keywords):
    """Return whether ``found``, output and lse, is as near to attention as it may be."""
    try:
        for one, expected in zip(found, budget("attention", *arrays, **keywords), strict=True):
            assert_within(one, expected)
    except AssertionError:
        return False
    return True


def unmarking(store_weights):
    """Return `fma.store_weights` without the mark that tells a hidden weight from a small one."""

    def unmarked(m, variant, layout, scores, weights):
        finite = [[[x * 0.0 for x in four] for four in group] for group in scores]
        store_weights(m, variant, layout, finite, weights)

    return unmarked
