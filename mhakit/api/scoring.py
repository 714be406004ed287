"""What targets see of sources, from query and key alone: scores, and weights of chosen rows."""

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
    handed_back,
    output_for,
)
from mhakit.validation import as_indices

__all__ = ["attention_scores", "attention_weights"]

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
