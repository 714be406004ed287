"""Compare ways of combining on the heads of one layer: size, work, rank, time, what each recovers.

It is a probe. The heads stay as they are, trained for the layer's own combination, and only what
comes after them is refitted; how another combination would do when heads are trained for it, this
does not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit import registry
from mhakit.analysis.comparison import ComparedCombination, Comparison
from mhakit.analysis.refitting import Words, not_finite, recovered, refit
from mhakit.api import combine
from mhakit.api.parameters import Speaking, ask_parameters, initialize
from mhakit.errors import MhakitError, MissingExtra, ParameterError, ShapeError
from mhakit.layer import MultiHeadAttention
from mhakit.plugin_api import HeadCombination, HeadShape
from mhakit.problem import computation_dtype
from mhakit.validation import as_float_array, as_size

__all__ = ["compare_combinations"]

Array = NDArray[Any]
Name = str | type[HeadCombination] | HeadCombination

LEAST_SEQUENCES = 5
FITTED, CHOSEN = 0.6, 0.8
"""The first 3/5 of the sequences are fitted on, up to 4/5 chosen on, the last 1/5 held out."""

REPEATS, SECONDS = 5, 0.02
"""A time is the best of so many calls, and of more until so much time is spent."""


def compare_combinations(
    layer: MultiHeadAttention,
    x: ArrayLike,
    names: Sequence[Name] | None = None,
    *,
    key_lengths: ArrayLike | None = None,
    steps: int = 50,
    seed: int = 0,
) -> Comparison:
    """Compare ways of combining the same heads: size, work, rank, time, and what each recovers.

    The layer's heads and its own output are computed from ``x`` and frozen; each combination is
    refitted so that it gives that output, on 3/5 of the sequences, and measured on 1/5 that are
    held out; on the others ridge and last step are chosen. A projection that is a parameter itself
    is solved by least squares; what else is learned takes steps of L-BFGS with the gradients of
    `mhakit.combine_vjp`. It is a probe: heads that were trained to be concatenated tell nothing of
    heads that are trained to be averaged.

    Parameters
    ----------
    layer : MultiHeadAttention
        The layer, with trained parameters; it stays as it is.
    x : ndarray, shape (B, T, M)
        B sequences of its input, in its dtype, five at least.
    names : sequence of str, type or HeadCombination, optional
        What to compare; all that are installed if not given.
    key_lengths : ints, shape (B,), optional
        How many words of each sequence are there; T if not given. Others are left out.
    steps : int
        Gradient steps at most.
    seed : int
        Which sequences are held out, and where parameters begin.

    Returns
    -------
    Comparison
        A record for each. One that cannot be built for these sizes, or breaks a rule, has no
        figures and says why. The same seed gives the same figures but times.

    Raises
    ------
    CombinationNotFound
        If a name is not installed.
    ParameterError
        If there are too few sequences or words, or an option is no such number.
    ShapeError, DTypeError
        If ``x`` is not what the layer takes.
    MissingExtra
        If scipy is needed and not installed; the extra ``models`` brings it.

    References
    ----------
    Alain and Bengio, Understanding intermediate layers using linear classifier probes,
    arXiv:1610.01644 (probes of frozen layers).

    Examples
    --------
    >>> import numpy as np, mhakit
    >>> layer = mhakit.MultiHeadAttention(8, num_heads=2, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((20, 6, 8), np.float32)
    >>> compared = mhakit.compare_combinations(layer, x, ["concat_project", "average"])
    >>> [round(row.recovered, 1) for row in compared][0]
    1.0
    >>> compared["average"].recovered < 1, compared["average"].fit
    (True, 'least squares')
    """
    if not isinstance(layer, MultiHeadAttention):
        raise ParameterError(f"layer must be a MultiHeadAttention, got {type(layer).__name__}")
    if isinstance(names, str):
        raise ParameterError(
            f"names must be a list of combinations, got {names!r}; pass [{names!r}]"
        )
    steps = as_size(steps, "steps")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ParameterError(f"seed must be an int of at least 0, got {seed!r}")
    rng = np.random.default_rng(seed)
    chosen = [record.name for record in registry.installed()] if names is None else list(names)
    strategies = [registry.resolve(name) for name in chosen]
    fitted, choosing, held_out = _parts(layer, x, key_lengths, rng)
    begin = int(rng.integers(2**32))
    rows = tuple(
        _compared(layer, strategy, (fitted, choosing, held_out), steps, begin)
        for strategy in strategies
    )
    own = layer.combination.name
    return Comparison(rows, own, len(fitted), len(choosing), len(held_out))


def _parts(
    layer: MultiHeadAttention, x: ArrayLike, key_lengths: Any, rng: np.random.Generator
) -> tuple[Words, Words, Words]:
    """Return the words to fit on, to choose on and to measure on, padding left out."""
    array = as_float_array(x, "x")
    M, E = layer.model_width, layer.value_width
    if array.ndim != 3:
        raise ShapeError(f"x must be (B, T, M) with M={M}, got shape {array.shape}")
    B, T, _ = array.shape
    if B < LEAST_SEQUENCES:
        raise ParameterError(
            f"x must have at least {LEAST_SEQUENCES} sequences, so that some can be held out, "
            f"got B={B}"
        )
    keywords = {} if key_lengths is None else {"key_lengths": key_lengths}
    real = computation_dtype(layer.dtype)  # 16 bits are too few to step in
    heads = layer.heads(array, **keywords)
    target = layer.combine(heads, array).astype(real, copy=False)
    heads, array = heads.astype(real, copy=False), array.astype(real, copy=False)
    lengths = np.full(B, T) if key_lengths is None else np.broadcast_to(key_lengths, (B,))
    there = np.arange(T) < lengths[:, None]
    order = rng.permutation(B)
    cuts = [round(FITTED * B), round(CHOSEN * B)]
    parts = []
    for sequences in np.split(order, cuts):
        seen = there[sequences]
        z = heads[sequences].swapaxes(1, 2)[seen]  # (N, H, E), as attention lays them
        parts.append(
            Words(
                z[None].swapaxes(1, 2), array[sequences][seen][None], target[sequences][seen][None]
            )
        )
    fitted, choosing, held_out = parts
    for part, least in ((fitted, 2 * (E + 1)), (choosing, 2), (held_out, 2)):
        if len(part) < least:
            raise ParameterError(
                f"x must have more words: at least {2 * (E + 1)} to fit on, twice the E+1 numbers "
                "that make a column of the smallest projection, and 2 to choose and to measure "
                f"on, got {len(fitted)}, {len(choosing)} and {len(held_out)}"
            )
    return fitted, choosing, held_out


def _compared(
    layer: MultiHeadAttention,
    strategy: HeadCombination,
    parts: tuple[Words, Words, Words],
    steps: int,
    seed: int,
) -> ComparedCombination:
    """Return the record of one combination, or why there is none."""
    fitted, choosing, held_out = parts
    shape = HeadShape(layer.num_heads, layer.value_width, layer.model_width)
    try:
        specs = ask_parameters(strategy, shape)
        rng = np.random.default_rng(seed)
        start = {
            name: initialize(strategy, name, spec, rng).astype(fitted.heads.dtype)
            for name, spec in specs.items()
        }
        with Speaking(strategy, "give its cost"):
            cost = strategy.cost(shape, 1, len(held_out))
        found = refit(strategy, start, fitted, choosing, steps)
        share, share_fitted = (
            recovered(strategy, found.parameters, words) for words in (held_out, fitted)
        )
        if not np.isfinite(share + share_fitted):
            raise not_finite()
        return ComparedCombination(
            strategy.name,
            strategy.reference,
            sum(array.size for array in start.values()),
            cost.flops / len(held_out),
            cost.output_rank,
            _seconds(strategy, found.parameters, held_out) / len(held_out) * 1e6,
            share,
            share_fitted,
            found.fit,
            found.steps,
        )
    except MissingExtra:
        raise
    except MhakitError as error:
        return ComparedCombination(strategy.name, strategy.reference, why_not=str(error))


def _seconds(strategy: HeadCombination, parameters: Any, words: Words) -> float:
    """Return the time of one call, the best of several."""
    times: list[float] = []
    while len(times) < REPEATS or sum(times) < SECONDS:
        started = perf_counter()
        combine(words.heads, strategy, parameters, hidden_states=words.hidden)
        times.append(perf_counter() - started)
    return min(times)
