"""Whether two results are equal, as far as the rounding of either lets them be.

Held against the exact result are all targets, or some of them and the one where the two differ
most: where both are right there, they agree everywhere. The error budget of `mhakit.testing` is
taken from one draw of rounding errors and speaks of one result; of two, it is taken twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.testing import Budget, assert_within

__all__ = ["CHECKED", "as_numpy", "hold", "sample"]

Array = NDArray[Any]

CHECKED = 2**25
"""Products of query and key that the exact result of a check may take."""


def sample(mine: Array, other: Array, cost: int) -> Array:
    """Return targets to check of two results (…, T, E): some, and where they differ most.

    ``cost`` is the products of one target.
    """
    if mine.shape != other.shape:
        raise AssertionError(f"mhakit returned shape {mine.shape}, the peer {other.shape}")
    T = mine.shape[-2]
    if T * cost <= CHECKED:
        return np.arange(T)
    apart = np.abs(mine.astype(np.float64) - other.astype(np.float64))
    worst = int(np.argmax(np.moveaxis(apart, -2, 0).reshape(T, -1).max(axis=1)))
    some = np.random.default_rng(T).choice(T, max(CHECKED // cost - 3, 1), replace=False)
    return np.unique([0, T - 1, worst, *some])


def as_numpy(result: Any) -> Array:
    """Return a peer's result as an array; torch's bfloat16, which NumPy lacks, as float32."""
    if hasattr(result, "detach"):
        result = result.detach()
        return np.asarray((result.float() if result.element_size() == 2 else result).numpy())
    return np.asarray(result)


def hold(sides: Mapping[str, Array], expected: Budget) -> None:
    """Raise AssertionError unless each side's result is the exact one."""
    for who, result in sides.items():
        assert_within(result, Budget(expected.exact, 2 * expected.allowed), who)
