"""Attention and its single steps: score, softmax, weighted sum, merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit import backends
from mhakit.errors import DTypeError, ParameterError, ShapeError
from mhakit.problem import computation_dtype
from mhakit.validation import (
    as_float_array,
    as_indices,
    as_output,
    as_problem,
    as_sinks,
    empty,
    require_layout,
    require_same_dtype,
)

__all__ = [
    "attention",
    "attention_scores",
    "attention_weights",
    "merge_attention",
    "softmax",
    "weighted_sum",
]

Array = NDArray[Any]
Causal = Literal["top_left", "bottom_right"] | bool | None
Window = tuple[int | None, int | None] | None
Integers = int | Sequence[int] | NDArray[np.integer[Any]]
Layout = Literal["BHTD", "BTHD"]


@overload
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    causal: Causal = ...,
    query_offset: Integers | None = ...,
    window: Window = ...,
    key_lengths: Integers | None = ...,
    scale: float | None = ...,
    softcap: float | None = ...,
    sinks: ArrayLike | None = ...,
    score_mod: Callable[..., Any] | None = ...,
    score_args: tuple[Any, ...] = ...,
    layout: Layout = ...,
    return_lse: Literal[False] = ...,
    backend: str | None = ...,
    out: Array | None = ...,
) -> Array: ...


@overload
def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    causal: Causal = ...,
    query_offset: Integers | None = ...,
    window: Window = ...,
    key_lengths: Integers | None = ...,
    scale: float | None = ...,
    softcap: float | None = ...,
    sinks: ArrayLike | None = ...,
    score_mod: Callable[..., Any] | None = ...,
    score_args: tuple[Any, ...] = ...,
    layout: Layout = ...,
    return_lse: Literal[True],
    backend: str | None = ...,
    out: Array | None = ...,
) -> tuple[Array, Array]: ...


def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
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
    score_mod: Callable[..., Any] | None = None,
    score_args: tuple[Any, ...] = (),
    layout: Layout = "BHTD",
    return_lse: bool = False,
    backend: str | None = None,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Softmax-weighted sums of values: ``softmax(query key^T * scale) value`` for every head.

    Scores are changed in this order: scale, softcap, bias, score_mod, mask (``mask``,
    ``causal``, ``window`` and ``key_lengths`` together). A source that a target may not see is
    never used: NaN or inf in its key or value does not reach that target. No array of size
    T * S is made by the ``cpu`` backend.

    Parameters
    ----------
    query : array, shape (B, H, T, D)
        float64, float32, float16 or bfloat16; any strides. B may be left out of all arrays.
    key : array, shape (B, G, S, D)
        Of query's dtype. H is a multiple of G; head h reads key/value head h // (H // G).
    value : array, shape (B, G, S, E)
        Of query's dtype.
    mask : bool array broadcastable to (B, H, T, S), optional
        True where a source may be seen.
    bias : float array broadcastable to (B, H, T, S), optional
        Added to the scaled and capped scores; -inf hides.
    causal : {None, "top_left", "bottom_right", True}
        Hide sources past the target's own position. True needs T = S or a ``query_offset``.
    query_offset : int or (B,) ints, optional
        Source position of target 0; may be negative or past S.
    window : (left, right), optional
        See only sources from ``left`` before the target's position to ``right`` after it;
        None on a side is unbounded.
    key_lengths : int or (B,) ints, optional
        Sources at and past it do not exist. Between 0 and S.
    scale : float, optional
        1/sqrt(D) by default.
    softcap : float, optional
        Greater than 0: scores become ``softcap * tanh(scores / softcap)``.
    sinks : float array, shape (H,), optional
        One more logit per head that takes weight and gives no value.
    score_mod : callable, optional
        Scalar function ``(score, b, h, t, s, *score_args) -> score`` compiled into the kernel,
        t being the target's source position; returning -inf hides. Write
        ``type(score)(t - s)`` where integers meet scores, so that float32 stays float32.
    score_args : tuple
        Arrays and numbers handed on to ``score_mod``.
    layout : {"BHTD", "BTHD"}
        Axis order of query, key, value and the output.
    return_lse : bool
        Also return the natural logarithm of each row's sum of exponentials.
    backend : {None, "cpu", "reference"}
        None is ``"cpu"``.
    out : ndarray, optional
        Where to write: the output's exact shape and dtype, no memory of an input.

    Returns
    -------
    output : ndarray, shape (B, H, T, E)
        In query's dtype and layout. A target that sees nothing is 0.
    lse : ndarray, shape (B, H, T)
        Only with ``return_lse``; float64 for float64 input, else float32. -inf where a target
        sees nothing (with a sink: the sink's logit).

    Raises
    ------
    ShapeError, DTypeError, ParameterError
        Where an argument breaks its rule.
    CompileError
        Where ``score_mod`` does not compile.
    BackendUnavailable
        Where the backend cannot run here.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.
    Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867.
    Dao, "FlashAttention-2", arXiv:2307.08691, section 3.1.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = (rng.standard_normal((1, 2, 5, 8)) for _ in range(3))
    >>> mhakit.attention(query, key, value, causal=True).shape
    (1, 2, 5, 8)

    The first target of causal attention sees only itself:

    >>> np.array_equal(mhakit.attention(query, key, value, causal=True)[:, :, 0], value[:, :, 0])
    True

    ALiBi as a ``score_mod``, one slope a head:

    >>> def alibi(score, b, h, t, s, slopes):
    ...     return score - slopes[h] * type(score)(t - s)
    >>> slopes = 2.0 ** -np.arange(1, 3)
    >>> mhakit.attention(query, key, value, score_mod=alibi, score_args=(slopes,)).shape
    (1, 2, 5, 8)
    """
    problem, batched = as_problem(
        query,
        key,
        value,
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
    engine = backends.select(backend)
    B, H, T, _ = problem.query.shape
    assert problem.value is not None
    E = problem.value.shape[3]
    output = _output(
        out,
        (B, H, T, E),
        problem.query.dtype,
        layout,
        batched,
        {
            "query": problem.query,
            "key": problem.key,
            "value": problem.value,
            "mask": problem.mask,
            "bias": problem.bias,
            "sinks": problem.sinks,
        },
    )
    lse = engine.attend(problem, _by_head(output, layout, batched))
    if not return_lse:
        return output
    lse = lse.astype(problem.real, copy=False)
    return output, lse if batched else lse[0]


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
    score_mod: Callable[..., Any] | None = None,
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
    engine = backends.select(backend)
    B, H, T, _ = problem.query.shape
    scores = _output(
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
    engine.score(problem, _by_head(scores, "BHTD", batched))
    return scores


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
    array = as_float_array(scores, "scores")
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
    engine = backends.select(backend)
    if out is None:
        weights = empty(array.shape, array.dtype, "weights")
    else:
        weights = as_output(out, array.shape, array.dtype, {"scores": array, "sinks": sinks_array})
    wide = (1,) * (4 - array.ndim)
    lead = (None,) * len(wide)
    engine.normalize(array[lead], sinks_array, weights[lead])
    return weights


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
    score_mod: Callable[..., Any] | None = None,
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
    engine = backends.select(backend)
    B, H, T, _ = problem.query.shape
    h = as_indices(heads, "heads", H, "H")
    t = as_indices(queries, "queries", T, "T")
    shape = (B, len(h), len(t), problem.key.shape[2])
    weights = _output(
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
    engine.weigh(problem, h, t, _by_head(weights, "BHTD", batched))
    return weights


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
        "weights": as_float_array(weights, "weights"),
        "value": as_float_array(value, "value"),
    }
    require_same_dtype(arrays)
    w, v = arrays["weights"], arrays["value"]
    if w.ndim not in (3, 4):
        raise ShapeError(f"weights must be (B, H, T, S) or (H, T, S), got shape {w.shape}")
    if v.ndim != w.ndim:
        raise ShapeError(f"value must have {w.ndim} axes as weights has, got shape {v.shape}")
    batched = w.ndim == 4
    w4 = w if batched else w[None]
    v4 = _by_head(v, layout, batched)
    B, H, T, S = w4.shape
    G = v4.shape[1]
    if v4.shape[0] != B or v4.shape[2] != S or G == 0 or H % G or v4.shape[3] == 0:
        raise ShapeError(
            f"value must have B={B}, S={S}, G dividing H={H} and E of at least 1, "
            f"got B={v4.shape[0]}, S={v4.shape[2]}, G={G}, E={v4.shape[3]}"
        )
    engine = backends.select(backend)
    output = _output(out, (B, H, T, v4.shape[3]), w.dtype, layout, batched, arrays)
    engine.weigh_values(w4, v4, _by_head(output, layout, batched))
    return output


def merge_attention(
    *parts: tuple[ArrayLike, ArrayLike], layout: Layout = "BHTD", backend: str | None = None
) -> tuple[Array, Array]:
    """Merge attention over disjoint sets of sources into attention over all of them, exactly.

    Parameters
    ----------
    *parts : (output, lse)
        One pair for each set, as ``attention(…, return_lse=True)`` gives them: output
        (B, H, T, E), lse (B, H, T). At most one part may have counted the sinks.
    layout : {"BHTD", "BTHD"}
        Axis order of the outputs, given and returned.
    backend : {None, "cpu", "reference"}
        As in `attention`.

    Returns
    -------
    output : ndarray, shape (B, H, T, E)
        In the parts' dtype. 0 where every part's lse is -inf.
    lse : ndarray, shape (B, H, T)
        In the computation dtype; -inf where every part's is.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, BackendUnavailable
        As `attention` does.

    References
    ----------
    Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory", arXiv:2112.05682, section 2.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = (rng.standard_normal((2, 6, 4)) for _ in range(3))
    >>> halves = [
    ...     mhakit.attention(query, key[:, part], value[:, part], return_lse=True)
    ...     for part in (slice(0, 3), slice(3, 6))
    ... ]
    >>> output, lse = mhakit.merge_attention(*halves)
    >>> np.allclose(output, mhakit.attention(query, key, value))
    True
    """
    require_layout(layout)
    if not parts:
        raise ParameterError(
            "merge_attention must be given one (output, lse) pair or more, got none"
        )
    outputs: dict[str, Array] = {}
    lses: list[Array] = []
    for i, part in enumerate(parts):
        if not isinstance(part, tuple) or len(part) != 2:
            raise ParameterError(
                f"part {i} must be a pair (output, lse), got {type(part).__name__}; "
                "attention(…, return_lse=True) gives one"
            )
        outputs[f"output {i}"] = as_float_array(part[0], f"output {i}")
        lses.append(as_float_array(part[1], f"lse {i}"))
    require_same_dtype(outputs)
    first = outputs["output 0"]
    if first.ndim not in (3, 4):
        raise ShapeError(f"output 0 must be (B, H, T, E) or (H, T, E), got shape {first.shape}")
    batched = first.ndim == 4
    real = computation_dtype(first.dtype)
    views = [_by_head(array, layout, batched) for array in outputs.values()]
    for i, (array, lse) in enumerate(zip(outputs.values(), lses, strict=True)):
        if array.shape != first.shape:
            raise ShapeError(
                f"output {i} must have the shape of output 0, {first.shape}, "
                f"got shape {array.shape}"
            )
        rows = views[0].shape[:3] if batched else views[0].shape[1:3]
        if lse.shape != rows:
            letters = "(B, H, T)" if batched else "(H, T)"
            raise ShapeError(f"lse {i} must be {letters} = {rows}, got shape {lse.shape}")
        if lse.dtype != real:
            raise DTypeError(f"lse {i} must be {real.name}, got {lse.dtype.name}")
    engine = backends.select(backend)
    output = empty(first.shape, first.dtype, "output")
    merged = empty(views[0].shape[:3], real, "lse")
    engine.merge(
        views,
        [lse if batched else lse[None] for lse in lses],
        _by_head(output, layout, batched),
        merged,
    )
    return output, merged if batched else merged[0]


def _by_head(array: Array, layout: str, batched: bool) -> Array:
    """View an array of the caller's layout as (B, H, T, …)."""
    array = array if batched else array[None]
    return array if layout == "BHTD" else array.swapaxes(1, 2)


def _output(
    out: Array | None,
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
    layout: str,
    batched: bool,
    inputs: dict[str, Array | None] | dict[str, Array],
) -> Array:
    """Return the array to write, in the caller's layout: ``out`` once checked, or a new one."""
    B, H, T, width = shape
    laid = (B, H, T, width) if layout == "BHTD" else (B, T, H, width)
    laid = laid if batched else laid[1:]  # type: ignore[assignment]
    if out is None:
        return empty(laid, dtype, "output")
    return as_output(out, laid, dtype, dict(inputs))
