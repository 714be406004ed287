"""ALiBi: a penalty linear in the distance, with a slope of its own for each head.

``score - m_h |t - s|``, m (H,).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mhakit.errors import ShapeError
from mhakit.plugin_api import Array, RegisterScoreMod, hookimpl

__all__ = ["alibi", "slopes_of"]


def slopes_of(num_heads: int) -> Array:
    """Return the authors' slopes, (H,): 2^(-8/H), 2^(-16/H), … where H is a power of two.

    Elsewhere those of the next lower power of two P, then every second one of 2P, as the authors'
    code has it.

    Examples
    --------
    >>> slopes_of(4)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625])
    >>> slopes_of(6)[4:]
    array([0.5  , 0.125])
    """
    power = 2 ** int(math.log2(num_heads))
    first = 2.0 ** (-8.0 / power * np.arange(1, power + 1))
    between = 2.0 ** (-4.0 / power * np.arange(1, 2 * power, 2))
    return np.concatenate([first, between[: num_heads - power]])


def penalize(score: Any, b: int, h: int, t: int, s: int, slopes: Any) -> Any:
    """Return ``score - slopes[h] * |t - s|``."""
    return score - slopes[h] * type(score)(abs(t - s))


def alibi(
    num_heads: int, dtype: np.dtype[Any], slopes: Array | None = None
) -> tuple[Any, tuple[Any, ...]]:
    """Make ALiBi: scores fall with the distance, ``score - m_h |t - s|``.

    Parameters
    ----------
    num_heads : int
        H.
    dtype : numpy.dtype
        The computation dtype.
    slopes : array, shape (H,), optional
        m; the authors' by default (`slopes_of`).

    Notes
    -----
    The paper is about causal attention, where s <= t. Without ``causal`` this is symmetric.

    References
    ----------
    Press, Smith and Lewis, Train Short, Test Long, arXiv:2108.12409, section 3.

    Examples
    --------
    >>> function, (slopes,) = alibi(2, np.dtype(np.float64))
    >>> float(function(1.0, 0, 0, 5, 3, slopes)), float(slopes[0])
    (0.875, 0.0625)
    """
    values = np.asarray(slopes_of(num_heads) if slopes is None else slopes, dtype)
    if values.shape != (num_heads,):
        raise ShapeError(f"slopes must be (H,) with H={num_heads}, got shape {values.shape}")
    return penalize, (values,)


@hookimpl
def mhakit_register_score_mods(register: RegisterScoreMod) -> None:
    """Register ``alibi``."""
    register("alibi", alibi, reference="arXiv:2108.12409")
