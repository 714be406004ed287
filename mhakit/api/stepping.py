"""The single steps of attention: score, softmax, both at once for chosen rows, weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit import backends
from mhakit.api.arguments import (
    Causal,
    Integers,
    Layout,
    ScoreMod,
    Window,
    as_problem,
    by_head,
    empty_beside,
    handed_back,
    output_for,
)
from mhakit.errors import ShapeError
from mhakit.validation import (
    as_float_array,
    as_indices,
    as_output,
    as_sinks,
    require_layout,
    require_one_place,
    require_same_dtype,
)

__all__ = ["attention_scores", "attention_weights", "softmax", "weighted_sum"]

Array = NDArray[Any]


def attention_scores(
    query: ArrayLike,
    key: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    causal: Causal = None,
    query_offset: Integers | None = None,
    window: Window = None,
    key_lengths: Integers | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    score_mod: ScoreMod = None,
    score_args: tuple[Any, ...] = (),
    layout: Layout = "BHTD",
    backend: str | None = None,
    out: Array | None = None,
) -> Array:
    """Scores as softmax would receive them; hidden sources are -inf.

    ``scale=1.0`` and no other keyword gives the bare products of query and key.

    Parameters
    ----------
    query, key, mask, bias, causal, query_offset, window, key_lengths, scale, softcap
        As in `attention`.
    score_mod, score_args, layout, backend, out
        As in `attention`; ``layout`` speaks of query and key only.

    Returns
    -------
    ndarray, shape (B, H, T, S)
        In the computation dtype: float64 for float64 input, else float32.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, CompileError, BackendUnavailable
        As `attention` does.

    References
    ----------
    Vaswani et al., arXiv:1706.03762, section 3.2.1.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> query = np.array([[[1.0, 0.0], [0.0, 2.0]]])
    >>> mhakit.attention_scores(query, query, scale=1.0, causal=True)
    array([[[  1., -inf],
            [  0.,   4.]]])
    """
    problem, batched = as_problem(
        query,
        key,
        None,
        needs_value=False,
        mask=mask,
        bias=bias,
        causal=causal,
        query_offset=query_offset,
        window=window,
        key_lengths=key_lengths,
        scale=scale,
        softcap=softcap,
        score_mod=score_mod,
        score_args=score_args,
        layout=layout,
    )
    engine = backends.select(backend, problem.query)
    B, H, T, _ = problem.query.shape
    scores = output_for(
        out,
        (B, H, T, problem.key.shape[2]),
        problem.real,
        "BHTD",
        batched,
        {
            "query": problem.query,
            "key": problem.key,
            "mask": problem.mask,
            "bias": problem.bias,
        },
    )
    engine.score(problem, by_head(scores, "BHTD", batched))
    return handed_back(scores)


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


def attention_weights(
    query: ArrayLike,
    key: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    causal: Causal = None,
    query_offset: Integers | None = None,
    window: Window = None,
    key_lengths: Integers | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: ArrayLike | None = None,
    score_mod: ScoreMod = None,
    score_args: tuple[Any, ...] = (),
    layout: Layout = "BHTD",
    heads: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    queries: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    backend: str | None = None,
    out: Array | None = None,
) -> Array:
    """Return what each target looks at: the weights of the heads and targets asked for.

    Memory is that of the result and no more, so a few rows of a long sequence are cheap.

    Parameters
    ----------
    query, key, mask, bias, causal, query_offset, window, key_lengths, scale, softcap, sinks
        As in `attention`.
    score_mod, score_args, layout, backend, out
        As in `attention`; ``layout`` speaks of query and key only.
    heads, queries : 1-D ints, optional
        Which heads and targets, in the order given, negatives from the end; None is all.

    Returns
    -------
    ndarray, shape (B, len(heads), len(queries), S)
        In query's dtype. A row sums to 1 (with a sink, to less); one that sees nothing is 0.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, CompileError, BackendUnavailable
        As `attention` does.

    References
    ----------
    Vaswani et al., arXiv:1706.03762, section 3.2.1.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> query = np.zeros((1, 8, 100, 16))
    >>> weights = mhakit.attention_weights(query, query, causal=True, heads=[-1], queries=[0, 3])
    >>> weights.shape
    (1, 1, 2, 100)
    >>> weights[0, 0, 1, :5]
    array([0.25, 0.25, 0.25, 0.25, 0.  ])
    """
    problem, batched = as_problem(
        query,
        key,
        None,
        needs_value=False,
        mask=mask,
        bias=bias,
        causal=causal,
        query_offset=query_offset,
        window=window,
        key_lengths=key_lengths,
        scale=scale,
        softcap=softcap,
        sinks=sinks,
        score_mod=score_mod,
        score_args=score_args,
        layout=layout,
    )
    engine = backends.select(backend, problem.query)
    B, H, T, _ = problem.query.shape
    h = as_indices(heads, "heads", H, "H")
    t = as_indices(queries, "queries", T, "T")
    shape = (B, len(h), len(t), problem.key.shape[2])
    weights = output_for(
        out,
        shape,
        problem.query.dtype,
        "BHTD",
        batched,
        {
            "query": problem.query,
            "key": problem.key,
            "mask": problem.mask,
            "bias": problem.bias,
            "sinks": problem.sinks,
        },
    )
    engine.weigh(problem, h, t, by_head(weights, "BHTD", batched))
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
