"""The steps of attention after the scores: softmax, and the weighted sum of values."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from mhakit import backends
from mhakit.api.arguments import Layout, by_head, empty_beside, handed_back, output_for
from mhakit.errors import ShapeError
from mhakit.validation import (
    as_float_array,
    as_output,
    as_sinks,
    require_layout,
    require_one_place,
    require_same_dtype,
)

__all__ = ["softmax", "weighted_sum"]

Array = NDArray[Any]


def softmax(
    scores: ArrayLike,
    *,
    sinks: ArrayLike | None = None,
    backend: str | None = None,
    out: Array | None = None,
) -> Array:
    """Softmax over the last axis, S; a row that is -inf throughout becomes 0.

    Parameters
    ----------
    scores : array, shape (…, S)
        Of any rank from 1 to 4; with ``sinks`` (B, H, T, S) or (H, T, S).
    sinks : float array, shape (H,), optional
        One more logit per head, in the sum but not in the result.
    backend, out
        As in `attention`.

    Returns
    -------
    ndarray, shape (…, S)
        In the dtype of ``scores``; 16-bit scores are summed in float32 and rounded once.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, BackendUnavailable
        As `attention` does.

    References
    ----------
    Milakov and Gimelshein, arXiv:1805.02867, section 2.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> mhakit.softmax(np.array([[0.0, 0.0], [-np.inf, -np.inf]]))
    array([[0.5, 0.5],
           [0. , 0. ]])
    """
    array = as_float_array(scores, "scores", placed=True)
    if not 1 <= array.ndim <= 4:
        raise ShapeError(
            f"scores must have 1 to 4 axes, the last of them S, got shape {array.shape}"
        )
    sinks_array = None
    if sinks is not None:
        if array.ndim < 3:
            raise ShapeError(
                f"scores must be (B, H, T, S) or (H, T, S) where sinks are given, "
                f"got shape {array.shape}"
            )
        sinks_array = as_sinks(sinks, array.shape[-3])
    require_one_place({"scores": array, "sinks": sinks_array})
    engine = backends.select(backend, array)
    if out is None:
        weights = empty_beside(array, array.shape, array.dtype, "weights")
    else:
        weights = as_output(out, array.shape, array.dtype, {"scores": array, "sinks": sinks_array})
    wide = (1,) * (4 - array.ndim)
    lead = (None,) * len(wide)
    engine.normalize(array[lead], sinks_array, weights[lead])
    return handed_back(weights)


def weighted_sum(
    weights: ArrayLike,
    value: ArrayLike,
    *,
    layout: Layout = "BHTD",
    backend: str | None = None,
    out: Array | None = None,
) -> Array:
    """Sum values by their weights, the last step of attention on its own.

    A source of weight 0 is left out, so that NaN in a hidden value stays hidden.

    Parameters
    ----------
    weights : array, shape (B, H, T, S)
        As `attention_weights` or `softmax` give them.
    value : array, shape (B, G, S, E)
        Of the dtype of ``weights``.
    layout, backend, out
        As in `attention`; ``layout`` speaks of value and the output only.

    Returns
    -------
    ndarray, shape (B, H, T, E)
        In the dtype of ``weights``.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, BackendUnavailable
        As `attention` does.

    References
    ----------
    Vaswani et al., arXiv:1706.03762, section 3.2.1.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> mhakit.weighted_sum(np.array([[[0.25, 0.75]]]), np.array([[[0.0], [4.0]]]))
    array([[[3.]]])
    """
    require_layout(layout)
    arrays = {
        "weights": as_float_array(weights, "weights", placed=True),
        "value": as_float_array(value, "value", placed=True),
    }
    require_one_place(arrays)
    require_same_dtype(arrays)
    w, v = arrays["weights"], arrays["value"]
    if w.ndim not in (3, 4):
        raise ShapeError(f"weights must be (B, H, T, S) or (H, T, S), got shape {w.shape}")
    if v.ndim != w.ndim:
        raise ShapeError(f"value must have {w.ndim} axes as weights has, got shape {v.shape}")
    batched = w.ndim == 4
    w4 = w if batched else w[None]
    v4 = by_head(v, layout, batched)
    B, H, T, S = w4.shape
    G = v4.shape[1]
    if v4.shape[0] != B or v4.shape[2] != S or G == 0 or H % G or v4.shape[3] == 0:
        raise ShapeError(
            f"value must have B={B}, S={S}, G dividing H={H} and E of at least 1, "
            f"got B={v4.shape[0]}, S={v4.shape[2]}, G={G}, E={v4.shape[3]}"
        )
    engine = backends.select(backend, w)
    output = output_for(out, (B, H, T, v4.shape[3]), w.dtype, layout, batched, arrays)
    engine.weigh_values(w4, v4, by_head(output, layout, batched))
    return handed_back(output)
