"""Attention, all its steps fused."""

from __future__ import annotations

from typing import Any, Literal, overload

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
from mhakit.api.repeating import repeated

__all__ = ["attention", "attention_and_weights"]

Array = NDArray[Any]


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
    score_mod: ScoreMod = ...,
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
    score_mod: ScoreMod = ...,
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
    score_mod: ScoreMod = None,
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
    T * S is made by the ``cpu`` and ``cuda`` backends.

    Parameters
    ----------
    query : array, shape (B, H, T, D)
        float64, float32, float16 or bfloat16; any strides. B may be left out of all arrays.
        In host memory, or on a CUDA device by DLPack or ``__cuda_array_interface__``; all arrays
        of a call lie in the same memory.
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
    score_mod : callable or str, optional
        Scalar function ``(score, b, h, t, s, *score_args) -> score`` compiled into the kernel,
        t being the target's source position; returning -inf hides. Write
        ``type(score)(t - s)`` where integers meet scores, so that float32 stays float32. Or an
        installed name, such as ``"alibi"`` (`mhakit.score_mods` lists them).
    score_args : tuple
        Arrays and numbers handed on to ``score_mod``; with a name, that score mod's options.
    layout : {"BHTD", "BTHD"}
        Axis order of query, key, value and the output.
    return_lse : bool
        Also return the natural logarithm of each row's sum of exponentials.
    backend : {None, "cpu", "cuda", "reference"}
        None is ``"cuda"`` for arrays on a CUDA device, else ``"cpu"``. ``"cuda"`` copies arrays
        of the host to the device, and the results back.
    out : ndarray, optional
        Where to write: the output's exact shape and dtype, no memory of an input.

    Returns
    -------
    output : ndarray, shape (B, H, T, E)
        In query's dtype and layout. A target that sees nothing is 0. Where the arrays lie on a
        device, so does it: torch's or CuPy's array where query is one, else Numba's, made on
        query's stream, which is not waited for.
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
    OutOfMemory, KernelError
        Where a result does not fit in memory, or a kernel fails on its device.

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

    ALiBi by its name, and written as a ``score_mod``, one slope a head:

    >>> by_name = mhakit.attention(query, key, value, score_mod="alibi")

    >>> def alibi(score, b, h, t, s, slopes):
    ...     return score - slopes[h] * type(score)(t - s)
    >>> slopes = 2.0 ** -np.array([4, 8])
    >>> written = mhakit.attention(query, key, value, score_mod=alibi, score_args=(slopes,))
    >>> np.allclose(written[:, :, -1], by_name[:, :, -1])
    True
    """
    if (
        mask is bias is causal is query_offset is window is key_lengths is scale is softcap is None
        and sinks is None
        and score_mod is None
        and backend is None
        and out is None
        and not return_lse
        and layout == "BHTD"
        and isinstance(score_args, tuple)
        and not score_args
    ):
        done = repeated(query, key, value)
        if done is not None:
            return done
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
    engine = backends.select(backend, problem.query)
    B, H, T, _ = problem.query.shape
    assert problem.value is not None
    E = problem.value.shape[3]
    output = output_for(
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
    lse = engine.attend(problem, by_head(output, layout, batched), wants_lse=return_lse)
    output = handed_back(output)
    if not return_lse:
        return output
    lse = handed_back(lse)
    if lse.dtype != problem.real and isinstance(lse, np.ndarray):
        lse = lse.astype(problem.real)
    return output, lse if batched else lse[0]


def attention_and_weights(
    query: Array,
    key: Array,
    value: Array,
    *,
    layout: Layout = "BHTD",
    backend: str | None = None,
    **keywords: Any,
) -> tuple[Array, Array]:
    """Return `attention` and the weights of every head, (B, H, T, S), of one pass over the scores.

    The output is summed by the weights before they are rounded; it equals `attention`'s to
    rounding, not bit by bit. ``keywords`` are `attention`'s.
    """
    problem, batched = as_problem(query, key, value, layout=layout, **keywords)
    engine = backends.select(backend, problem.query)
    B, H, T, _ = problem.query.shape
    S, E = value.shape[-3 if layout == "BTHD" else -2], value.shape[-1]
    dtype = problem.query.dtype
    output = output_for(None, (B, H, T, E), dtype, layout, batched, {})
    weights = output_for(None, (B, H, T, S), dtype, "BHTD", batched, {})
    engine.weigh(
        problem,
        np.arange(H),
        np.arange(T),
        by_head(weights, "BHTD", batched),
        by_head(output, layout, batched),
    )
    return output, weights
