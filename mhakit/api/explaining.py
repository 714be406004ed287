"""What a call would run, and why, without running it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike

from mhakit import backends
from mhakit.api.arguments import Causal, Integers, Layout, ScoreMod, Window, as_problem
from mhakit.problem import Problem

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `mhakit.attention` would do with the same arguments.

    Attributes
    ----------
    backend, kernel, why : str
        Which backend, which kernel of it, and the reason.
    order : str
        The order in which a row is summed; two calls of equal order give a row equal bits.
    dtype, computation_dtype : str
        Of the arrays, and of the arithmetic.
    tile : tuple of int
        Targets and sources that one step of the kernel takes.
    lanes, threads : int
        Numbers in one vector register, and threads a call may use.
    tiles_full, tiles_border, tiles_skipped : int
        Tiles computed without and with a visibility test, and tiles not touched at all.
    flops, bytes_moved, scratch_bytes : int
        Arithmetic of the tiles computed, bytes of inputs and output, bytes allocated beyond them.
    """

    backend: str
    kernel: str
    why: str
    order: str
    dtype: str
    computation_dtype: str
    tile: tuple[int, int]
    lanes: int
    threads: int
    tiles_full: int
    tiles_border: int
    tiles_skipped: int
    flops: int
    bytes_moved: int
    scratch_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(len(name) for name in self.to_dict())
        return "\n".join(
            f"{name:<{width}}  {_readable(value)}" for name, value in self.to_dict().items()
        )


def explain(
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
    backend: str | None = None,
) -> Explanation:
    """Say which backend, kernel, tiles and threads `attention` would use, and why. Runs nothing.

    Parameters
    ----------
    query, key, value, mask, bias, causal, query_offset, window, key_lengths, scale, softcap
        As in `attention`.
    sinks, score_mod, score_args, layout, backend
        As in `attention`.

    Returns
    -------
    Explanation
        Frozen; ``str(…)`` is a table, ``.to_dict()`` plain data.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, BackendUnavailable
        As `attention` does.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> x = np.zeros((1, 8, 256, 64), dtype=np.float32)
    >>> plan = mhakit.explain(x, x, x, causal=True)
    >>> plan.backend, plan.tiles_skipped > 0
    ('cpu', True)
    """
    problem, _ = as_problem(
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
    facts = engine.describe(problem)
    assert problem.value is not None
    D, E = problem.query.shape[3], problem.value.shape[3]
    whole = math.prod(facts["tile"]) * (facts["tiles_full"] + facts["tiles_border"])
    scores = facts.pop("scores", whole)  # of tiles that may be narrower
    return Explanation(
        backend=engine.__name__.rpartition(".")[2],
        dtype=problem.query.dtype.name,
        computation_dtype=problem.real.name,
        flops=2 * (D + E) * scores,
        bytes_moved=_bytes(problem),
        **facts,
    )


def _bytes(problem: Problem) -> int:
    """Bytes of the arrays as they lie, a broadcast axis counted once, and of the output."""
    value = problem.value
    assert value is not None
    B, H, T, _ = problem.query.shape
    given = (problem.query, problem.key, value, problem.mask, problem.bias, problem.sinks)
    read = sum(
        array.itemsize * _distinct(array.shape, array.strides)
        for array in given
        if array is not None
    )
    written: int = B * H * T * value.shape[3] * value.itemsize
    return read + written


def _distinct(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    sizes = (size for size, stride in zip(shape, strides, strict=True) if stride or size == 0)
    return math.prod(sizes)


def _readable(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
