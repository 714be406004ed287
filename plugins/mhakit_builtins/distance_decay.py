"""Soft distance decay: weights fall as a power of the distance, never to 0.

``score - r_h log(1 + a_h |t - s|)``, r and a (H,): the logarithmic kernel of KERPLE.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mhakit.errors import ParameterError, ShapeError
from mhakit.plugin_api import Array, RegisterScoreMod, hookimpl

__all__ = ["distance_decay"]


def decay(score: Any, b: int, h: int, t: int, s: int, rates: Any, scales: Any) -> Any:
    """Return ``score - rates[h] * log(1 + scales[h] * |t - s|)``."""
    return score - rates[h] * math.log1p(scales[h] * type(score)(abs(t - s)))


def distance_decay(
    num_heads: int,
    dtype: np.dtype[Any],
    rates: Array | float = 1.0,
    scales: Array | float = 1.0,
) -> tuple[Any, tuple[Any, ...]]:
    """Make a soft decay with the distance: ``score - r_h log(1 + a_h |t - s|)``.

    A weight before normalisation is multiplied by ``(1 + a |t - s|)^-r``: far sources fade slowly,
    where ALiBi's exponential all but removes them.

    Parameters
    ----------
    num_heads : int
        H.
    dtype : numpy.dtype
        The computation dtype.
    rates : float or array, shape (H,)
        r, at least 0.
    scales : float or array, shape (H,)
        a, at least 0.

    Notes
    -----
    The paper learns both, positive and per head; 1 and 1 are only where this begins, not its
    values. It is about causal attention; without ``causal`` this is symmetric.

    References
    ----------
    Chi, Fan, Ramadge and Rudnicky, KERPLE, arXiv:2205.09921, section 4 (logarithmic variant).

    Examples
    --------
    >>> function, score_args = distance_decay(2, np.dtype(np.float64), 2.0)
    >>> round(math.exp(function(0.0, 0, 0, 5, 2, *score_args)) * 4**2, 9)
    1.0
    """
    given = {"rates": rates, "scales": scales}
    arrays = {name: np.asarray(value, dtype) for name, value in given.items()}
    for name, array in arrays.items():
        if array.shape not in ((), (num_heads,)):
            raise ShapeError(
                f"{name} must be a number or (H,) with H={num_heads}, got shape {array.shape}"
            )
        if not (np.isfinite(array).all() and (array >= 0).all()):
            raise ParameterError(f"{name} must be finite and at least 0, got {array}")
    return decay, tuple(np.array(np.broadcast_to(a, (num_heads,))) for a in arrays.values())


@hookimpl
def mhakit_register_score_mods(register: RegisterScoreMod) -> None:
    """Register ``distance_decay``."""
    register("distance_decay", distance_decay, reference="arXiv:2205.09921")
