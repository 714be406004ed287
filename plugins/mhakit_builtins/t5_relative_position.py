"""T5's relative position bias: a learned number for each bucket of distances and each head.

``score + table[bucket(s - t), h]``, table (buckets, H).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mhakit.errors import ParameterError, ShapeError
from mhakit.plugin_api import Array, RegisterScoreMod, hookimpl

__all__ = ["buckets_of", "t5_relative_position", "t5_relative_position_causal"]


def buckets_of(distances: Array, num_buckets: int, max_distance: int, *, causal: bool) -> Array:
    """Return the bucket of each distance s - t, as T5 has it.

    A side has all buckets where ``causal`` (sources after the target share that of distance 0) and
    half of them otherwise, the second half for sources after the target. Half of a side's buckets
    hold one distance each; the rest grow by a constant factor up to ``max_distance``, and what is
    further shares the last.

    Examples
    --------
    >>> buckets_of(np.array([0, -1, -7, -8, -127, -500, 1]), 32, 128, causal=False)
    array([ 0,  1,  7,  8, 15, 15, 17])
    >>> buckets_of(np.array([0, -15, -16, -500, 1]), 32, 128, causal=True)
    array([ 0, 15, 16, 31,  0])
    """
    side = num_buckets if causal else num_buckets // 2
    exact = side // 2
    far = np.maximum(-distances, 0) if causal else np.abs(distances)
    # float32, as the trained models compute it
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
    share = ratio / np.float32(np.log(max_distance / exact)) * np.float32(side - exact)
    grown = np.minimum(exact + share.astype(np.int64), side - 1)
    buckets = np.where(far < exact, far, grown)
    return np.asarray(buckets if causal else buckets + side * (distances > 0))


def add_bias(score: Any, b: int, h: int, t: int, s: int, by_distance: Any) -> Any:
    """Return ``score + by_distance[h, s - t]``, distances clipped and laid from the most negative.

    The last distance to each side stands for all further ones: they share a bucket.
    """
    reach = by_distance.shape[1] // 2
    return score + by_distance[h, min(max(s - t, -reach), reach) + reach]


def t5_relative_position(
    num_heads: int, dtype: np.dtype[Any], table: Array, max_distance: int = 128
) -> tuple[Any, tuple[Any, ...]]:
    """Make T5's bias of the encoder, both directions apart: ``score + table[bucket(s - t), h]``.

    Parameters
    ----------
    num_heads : int
        H.
    dtype : numpy.dtype
        The computation dtype.
    table : array, shape (buckets, H)
        Learned; T5 has 32 buckets. An even number of 4 or more.
    max_distance : int
        Where the last bucket begins to hold everything, more than buckets / 4.

    Notes
    -----
    T5 does not scale its scores: pass ``scale=1.0`` with it for a layer of T5's own.

    References
    ----------
    Raffel et al., Exploring the Limits of Transfer Learning, arXiv:1910.10683, section 2.1.

    Examples
    --------
    >>> table = np.arange(32.0)[:, None]
    >>> function, score_args = t5_relative_position(1, np.dtype(np.float64), table)
    >>> float(function(0.0, 0, 0, 5, 6, *score_args)), float(function(0.0, 0, 0, 6, 5, *score_args))
    (17.0, 1.0)
    """
    return _by_distance(num_heads, dtype, table, max_distance, causal=False)


def t5_relative_position_causal(
    num_heads: int, dtype: np.dtype[Any], table: Array, max_distance: int = 128
) -> tuple[Any, tuple[Any, ...]]:
    """Make T5's bias of the decoder: all buckets for the sources before the target.

    Parameters
    ----------
    num_heads : int
        H.
    dtype : numpy.dtype
        The computation dtype.
    table : array, shape (buckets, H)
        Learned; T5 has 32 buckets. Of 2 or more.
    max_distance : int
        Where the last bucket begins to hold everything, more than buckets / 2.

    Notes
    -----
    It hides nothing: pass ``causal`` as well. Sources after the target get the bias of distance 0.

    References
    ----------
    Raffel et al., Exploring the Limits of Transfer Learning, arXiv:1910.10683, section 2.1.

    Examples
    --------
    >>> table = np.arange(32.0)[:, None]
    >>> function, score_args = t5_relative_position_causal(1, np.dtype(np.float64), table)
    >>> float(function(0.0, 0, 0, 500, 0, *score_args))
    31.0
    """
    return _by_distance(num_heads, dtype, table, max_distance, causal=True)


def _by_distance(
    num_heads: int, dtype: np.dtype[Any], table: Array, max_distance: int, *, causal: bool
) -> tuple[Any, tuple[Any, ...]]:
    """Lay the table out by distance, (H, 2 reach + 1), so that the kernel takes no logarithm."""
    values = np.asarray(table, dtype)
    if values.ndim != 2 or values.shape[1] != num_heads:
        raise ShapeError(f"table must be (buckets, H) with H={num_heads}, got shape {values.shape}")
    count = values.shape[0]
    if count < 2 if causal else count < 4 or count % 2:
        rule = "at least 2" if causal else "an even number, at least 4, of"
        raise ShapeError(f"table must have {rule} buckets, got {count}")
    exact = count // 2 if causal else count // 4
    if not isinstance(max_distance, int | np.integer) or max_distance <= exact:
        raise ParameterError(
            f"max_distance must be an int greater than {exact}, as the table has {count} buckets, "
            f"got {max_distance!r}"
        )
    distances = np.arange(-int(max_distance), int(max_distance) + 1)
    rows = buckets_of(distances, count, int(max_distance), causal=causal)
    return add_bias, (np.ascontiguousarray(values[rows].T),)


@hookimpl
def mhakit_register_score_mods(register: RegisterScoreMod) -> None:
    """Register both directions' and the causal variant."""
    for factory in (t5_relative_position, t5_relative_position_causal):
        register(factory.__name__, factory, reference="arXiv:1910.10683")
