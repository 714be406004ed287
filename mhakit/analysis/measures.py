"""Measures of attention weights A, (…, T, S): a number per target, or one per head.

Weights are 0 where a source is hidden. A target that sees nothing, a row of zeros, is dead: it
measures 0, and takes no part in what is averaged over targets. Targets that are padding are not
dead, they look at real sources; slice them off first. A measure computes in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit.errors import DTypeError, ParameterError, ShapeError

__all__ = [
    "confidence",
    "entropy",
    "mean_distance",
    "offset_score",
    "relative_entropy",
    "share_on",
    "strongest_source",
]

Numbers = NDArray[np.float64]


def entropy(weights: ArrayLike) -> Numbers:
    """Measure how spread a target's weights are: -sum A log A, in nats.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.

    Returns
    -------
    ndarray of float64, shape (…, T)
        0 for one source alone, log(n) for n sources alike; 0 for a dead target.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.

    References
    ----------
    Shannon, "A mathematical theory of communication", 1948, section 6; of heads: Clark et al.,
    "What does BERT look at?", arXiv:1906.04341, section 3.3.

    Examples
    --------
    >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4)
    array([0.6931, 0.    ])
    """
    A = _weights(weights)
    logarithm = np.log(A, out=np.zeros_like(A), where=A > 0)
    spread: Numbers = 0.0 - (A * logarithm).sum(axis=-1)  # 0 - x: never -0.0
    return spread


def relative_entropy(weights: ArrayLike, visible: ArrayLike | None = None) -> Numbers:
    """Measure the entropy over its largest possible value, log of the visible sources' number.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.
    visible : int or ndarray of int, broadcastable to (…, T), optional
        How many sources each target may see; None counts the weights above 0.

    Returns
    -------
    ndarray of float64, shape (…, T)
        Between 0 and 1; 0 where fewer than two sources are visible.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.

    References
    ----------
    The ratio is Shannon's relative entropy, "A mathematical theory of communication", 1948,
    section 7.

    Examples
    --------
    >>> relative_entropy([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    array([1., 0.])
    >>> relative_entropy([[0.5, 0.5, 0.0]], visible=3).round(4)
    array([0.6309])
    """
    A = _weights(weights)
    count = np.asarray((A > 0).sum(axis=-1) if visible is None else visible)
    count = np.broadcast_to(count, A.shape[:-1])
    largest = np.log(np.maximum(count, 1).astype(np.float64))
    spread = entropy(A)
    return _ratio(spread, largest)


def strongest_source(weights: ArrayLike) -> NDArray[np.int64]:
    """Return the source each target looks at most.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.

    Returns
    -------
    ndarray of int64, shape (…, T)
        Its index, the first of equal ones; -1 for a dead target.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.

    References
    ----------
    Clark et al., "What does BERT look at?", arXiv:1906.04341, section 4.

    Examples
    --------
    >>> strongest_source([[0.1, 0.9], [0.5, 0.5], [0.0, 0.0]])
    array([ 1,  0, -1])
    """
    A = _weights(weights)
    if A.shape[-1] == 0:
        return np.full(A.shape[:-1], -1, dtype=np.int64)
    return np.where(A.sum(axis=-1) > 0, A.argmax(axis=-1), -1).astype(np.int64)


def confidence(weights: ArrayLike) -> Numbers:
    """Measure how sure a head is: the mean over targets of the largest weight.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.

    Returns
    -------
    ndarray of float64, shape (…)
        Between 1/S and 1; 0 where every target is dead.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.

    References
    ----------
    Voita et al., "Analyzing multi-head self-attention", arXiv:1905.09418, section 4.

    Examples
    --------
    >>> float(confidence([[0.75, 0.25], [0.5, 0.5], [0.0, 0.0]]))
    0.625
    """
    A = _weights(weights)
    live = (A.sum(axis=-1) > 0).sum(axis=-1)
    return _ratio(A.max(axis=-1, initial=0.0).sum(axis=-1), live.astype(np.float64))


def mean_distance(weights: ArrayLike, query_offset: int = 0) -> Numbers:
    """Measure how far a target looks: sum A |t - s|, in tokens.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.
    query_offset : int
        Source position of the first target.

    Returns
    -------
    ndarray of float64, shape (…, T)
        0 for a dead target.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.

    References
    ----------
    Vig and Belinkov, "Analyzing the structure of attention", arXiv:1906.04284, section 4.2.

    Examples
    --------
    >>> mean_distance([[0.5, 0.5], [0.0, 1.0]])
    array([0.5, 0. ])
    """
    A = _weights(weights)
    distance: Numbers = (A * np.abs(_offsets(A, query_offset))).sum(axis=-1)
    return distance


def offset_score(weights: ArrayLike, offset: int, query_offset: int = 0) -> Numbers:
    """Measure how much a head looks ``offset`` tokens to the right: -1 previous, 0 self, 1 next.

    It is sum(A * pattern) / sum(A) over the targets that have such a source.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.
    offset : int
        Source position less target position.
    query_offset : int
        Source position of the first target.

    Returns
    -------
    ndarray of float64, shape (…)
        Between 0 and 1; 0 where no live target has such a source.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.

    References
    ----------
    Voita et al., "Analyzing multi-head self-attention", arXiv:1905.09418, section 5.1.

    Examples
    --------
    >>> float(offset_score([[1.0, 0.0], [0.75, 0.25]], -1))
    0.75
    """
    A = _weights(weights)
    pattern = _offsets(A, query_offset) == offset
    asked = A * pattern.any(axis=-1)[:, None]
    return _ratio((A * pattern).sum(axis=(-1, -2)), asked.sum(axis=(-1, -2)))


def share_on(weights: ArrayLike, sources: ArrayLike) -> Numbers:
    """Measure the share of a head's weight on given sources: the first token, separators.

    Parameters
    ----------
    weights : ndarray of float, shape (…, T, S)
        Attention weights.
    sources : ndarray of int, one axis
        Indices over S; a source named twice counts once.

    Returns
    -------
    ndarray of float64, shape (…)
        Between 0 and 1; 0 where every target is dead.

    Raises
    ------
    DTypeError, ShapeError
        Where the weights are not floats or have fewer than two axes.
    ParameterError
        Where an index is out of range.

    References
    ----------
    Clark et al., "What does BERT look at?", arXiv:1906.04341, section 3.2.

    Examples
    --------
    >>> float(share_on([[0.75, 0.25], [0.5, 0.5]], [0]))
    0.625
    """
    A = _weights(weights)
    S = A.shape[-1]
    index = np.asarray(sources)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise ParameterError(f"sources must be a list of integers, got {sources!r}")
    chosen = np.zeros(S, dtype=bool)
    for source in index:
        if not -S <= source < S:
            raise ParameterError(f"sources must be between {-S} and {S - 1} (S={S}), got {source}")
        chosen[source] = True
    return _ratio((A * chosen).sum(axis=(-1, -2)), A.sum(axis=(-1, -2)))


def _weights(weights: ArrayLike) -> Numbers:
    """Return the weights as float64, checked."""
    A = np.asarray(weights)
    if A.dtype.kind != "f" and A.dtype.name != "bfloat16":
        raise DTypeError(f"weights must be an array of floats, got dtype {A.dtype}")
    if A.ndim < 2:
        raise ShapeError(f"weights must have shape (…, T, S), got shape {A.shape}")
    return A.astype(np.float64, copy=False)


def _offsets(A: NDArray[Any], query_offset: int) -> NDArray[np.int64]:
    """Return source position less target position, (T, S)."""
    T, S = A.shape[-2:]
    return np.arange(S)[None, :] - (np.arange(T)[:, None] + query_offset)


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    ratio: Numbers = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return ratio
