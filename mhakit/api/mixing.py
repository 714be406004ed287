"""Attention whose heads exchange scores and weights: the plugin mixes, all else is done here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mhakit import backends, registry
from mhakit.api.arguments import Causal, Integers, Layout, Window, by_head, output_for
from mhakit.api.hiding import hidden_from_heads
from mhakit.api.mixer import mix, what_it_reads
from mhakit.api.parameters import (
    Rng,
    as_generator,
    ask_parameters,
    initialize,
)
from mhakit.plugin_api import HeadMixing, MixingShape
from mhakit.validation import as_dtype, as_mixed_call, as_size, empty

__all__ = ["mixed_attention", "mixing_parameters"]

Array = NDArray[Any]
Mixing = str | type[HeadMixing] | HeadMixing


@overload
def mixed_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    mixing: Mixing,
    parameters: Mapping[str, ArrayLike] | None = ...,
    *,
    softmax_heads: int | None = ...,
    value_heads: int | None = ...,
    hidden_states: ArrayLike | None = ...,
    source_states: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    causal: Causal = ...,
    query_offset: Integers | None = ...,
    window: Window = ...,
    key_lengths: Integers | None = ...,
    scale: float | None = ...,
    layout: Layout = ...,
    return_weights: Literal[False] = ...,
    backend: str | None = ...,
) -> Array: ...


@overload
def mixed_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    mixing: Mixing,
    parameters: Mapping[str, ArrayLike] | None = ...,
    *,
    softmax_heads: int | None = ...,
    value_heads: int | None = ...,
    hidden_states: ArrayLike | None = ...,
    source_states: ArrayLike | None = ...,
    mask: ArrayLike | None = ...,
    bias: ArrayLike | None = ...,
    causal: Causal = ...,
    query_offset: Integers | None = ...,
    window: Window = ...,
    key_lengths: Integers | None = ...,
    scale: float | None = ...,
    layout: Layout = ...,
    return_weights: Literal[True],
    backend: str | None = ...,
) -> tuple[Array, Array]: ...


def mixed_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    mixing: Mixing,
    parameters: Mapping[str, ArrayLike] | None = None,
    *,
    softmax_heads: int | None = None,
    value_heads: int | None = None,
    hidden_states: ArrayLike | None = None,
    source_states: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    causal: Causal = None,
    query_offset: Integers | None = None,
    window: Window = None,
    key_lengths: Integers | None = None,
    scale: float | None = None,
    layout: Layout = "BHTD",
    return_weights: bool = False,
    backend: str | None = None,
) -> Array | tuple[Array, Array]:
    """Attention whose heads exchange scores before softmax, and weights after it.

    In this order: scale, mix, bias and mask, softmax, mix, times value. There are three counts of
    heads: those of the query, which score; those that softmax runs over, by which mask and bias
    go; and those of the weights that values are taken by. As bias and mask come after the first
    mix and a source that no head may see is set to 0 after the second, no mixing can bring a
    hidden source back: NaN or inf in its key, value or hidden state does not reach the target.
    A source that some head of softmax sees is seen by all that is mixed from that head.

    Unlike `attention` this holds all scores and weights in memory. At its peak it takes
    ``B * T * S * max(score_heads + softmax_heads, softmax_heads + value_heads)`` numbers of 4
    bytes (8 in float64), and what the mixing itself needs: 12 heads over 4096 words are 1.6 GB.

    Parameters
    ----------
    query : array, shape (B, H, T, D)
        As in `attention`; H is the count of heads that score.
    key : array, shape (B, G, S, D)
        Of query's dtype, G a divisor of H.
    value : array, shape (B, V, S, E)
        Of query's dtype; V has nothing to do with H and G.
    mixing : str, type or HeadMixing
        An installed name (`mixings` lists them), a class, or an object of one.
    parameters : mapping of str to ndarray
        The mixing's learned parameters by name, of any float dtype (`mixing_parameters` makes
        them).
    softmax_heads : int, optional
        Heads between the two mixes; H by default.
    value_heads : int, optional
        Heads of weights after the second mix, a multiple of V: head k takes value head
        ``k // (value_heads // V)``. V by default.
    hidden_states : array, shape (B, T, M), optional
        The layer's input at the targets, for mixings that read it.
    source_states : array, shape (B, S, M), optional
        The layer's input at the sources; ``hidden_states`` by default, where T = S.
    mask : bool array broadcastable to (B, softmax_heads, T, S), optional
        True where a source may be seen.
    bias : float array broadcastable to (B, softmax_heads, T, S), optional
        Added to the mixed scores; -inf hides.
    causal, query_offset, window, key_lengths, scale, layout, backend
        As in `attention`.
    return_weights : bool
        Also return the weights that the values were taken by.

    Returns
    -------
    output : ndarray, shape (B, value_heads, T, E)
        In query's dtype and layout. A target that sees nothing is 0.
    weights : ndarray, shape (B, value_heads, T, S)
        Only with ``return_weights``, in query's dtype; exactly 0 where no head may look.

    Raises
    ------
    ShapeError, DTypeError, ParameterError
        Where an argument breaks its rule.
    MixingNotFound, PluginError
        If the mixing is not installed, or returns what its rules forbid.
    OutOfMemory
        Where scores or weights do not fit in memory.
    BackendUnavailable
        Where the backend cannot run here.

    References
    ----------
    Shazeer et al., Talking-Heads Attention, arXiv:2003.02436, section 3.
    Xiao et al., Dynamically Composable Multi-Head Attention, arXiv:2405.08553, section 2.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key = (rng.standard_normal((1, 6, 5, 8)) for _ in range(2))
    >>> value = rng.standard_normal((1, 2, 5, 8))
    >>> learned = {
    ...     "score_projection": rng.standard_normal((6, 4)),
    ...     "weight_projection": rng.standard_normal((4, 2)),
    ... }
    >>> mhakit.mixed_attention(
    ...     query, key, value, "talking_heads", learned, softmax_heads=4, causal=True
    ... ).shape
    (1, 2, 5, 8)
    """
    strategy = registry.resolve_mixing(mixing)
    call = as_mixed_call(
        query,
        key,
        value,
        softmax_heads=softmax_heads,
        value_heads=value_heads,
        hidden_states=hidden_states,
        source_states=source_states,
        mask=mask,
        bias=bias,
        causal=causal,
        query_offset=query_offset,
        window=window,
        key_lengths=key_lengths,
        scale=scale,
        layout=layout,
    )
    engine = backends.select(backend)
    # the reference means everything in float64
    real = np.dtype(np.float64) if backend == "reference" else call.problem.real
    given = what_it_reads(strategy, call, {} if parameters is None else parameters, real)
    hidden = hidden_from_heads(call)
    unseen = None if hidden is None else hidden.all(axis=1, keepdims=True)
    B, _, T, _ = call.problem.query.shape
    S, E = call.value.shape[2:]

    scores = empty((B, call.shape.score_heads, T, S), real, "the scores of mixed attention")
    engine.score(call.problem, scores)
    if unseen is not None:
        np.copyto(scores, 0, where=unseen)
    scores = mix(strategy.mix_scores, scores, call.shape.softmax_heads, strategy, given)
    if call.bias is not None:
        with np.errstate(invalid="ignore"):  # inf - inf, where a source is hidden besides
            scores += call.bias.astype(real, copy=False)
    if hidden is not None:
        np.copyto(scores, -np.inf, where=hidden)
    engine.normalize(scores, None, scores)
    weights = mix(strategy.mix_weights, scores, call.shape.value_heads, strategy, given)
    if unseen is not None:
        np.copyto(weights, 0, where=unseen)

    dtype = call.problem.query.dtype
    shape = (B, call.shape.value_heads, T, E)
    output = output_for(None, shape, dtype, layout, call.batched, {})
    laid = by_head(output, layout, call.batched)
    wide = laid if dtype == real else empty(shape, real, "the output of mixed attention")
    engine.weigh_values(weights, call.value.astype(real, copy=False), wide)
    if wide is not laid:
        laid[...] = wide
    if not return_weights:
        return output
    weights = weights.astype(dtype, copy=False)
    return output, weights if call.batched else weights[0]


def mixing_parameters(
    mixing: Mixing,
    *,
    score_heads: int,
    softmax_heads: int | None = None,
    value_heads: int | None = None,
    model_width: int | None = None,
    dtype: DTypeLike = np.float32,
    rng: Rng = None,
) -> dict[str, Array]:
    """Return the parameters that a mixing begins with, by name.

    Parameters
    ----------
    mixing : str, type or HeadMixing
        As in `mixed_attention`.
    score_heads, softmax_heads, value_heads : int
        The three counts of heads; the last two are ``score_heads`` where they are left out.
    model_width : int, optional
        M, for mixings that read hidden states.
    dtype : dtype
        Of what is returned.
    rng : int or numpy.random.Generator
        The source of randomness.

    Returns
    -------
    dict of str to ndarray
        What `mixed_attention` takes as ``parameters``.

    Raises
    ------
    ParameterError, DTypeError
        If these counts cannot be mixed so, or an argument breaks its rule.
    MixingNotFound, PluginError
        If the mixing is not installed, or breaks its rules.

    Examples
    --------
    >>> import mhakit
    >>> mhakit.mixing_parameters("talking_heads", score_heads=2)["score_projection"]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    strategy = registry.resolve_mixing(mixing)
    generator, kind = as_generator(rng), as_dtype(dtype)
    width = None if model_width is None else as_size(model_width, "model_width")
    scoring = as_size(score_heads, "score_heads")
    softmax = scoring if softmax_heads is None else as_size(softmax_heads, "softmax_heads")
    values = scoring if value_heads is None else as_size(value_heads, "value_heads")
    shape = MixingShape(scoring, softmax, values, width)
    return {
        name: initialize(strategy, name, spec, generator).astype(kind)
        for name, spec in ask_parameters(strategy, shape).items()
    }
