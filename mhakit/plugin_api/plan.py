"""What a combination says of itself: for which sizes, what it learns, what to compute, its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "CombinationCost",
    "CombinationPlan",
    "HeadShape",
    "Initializer",
    "ParameterSpec",
]

Array = NDArray[Any]
Initializer = Callable[[np.random.Generator, tuple[int, ...]], Array]
NamedInitializer = Literal["zeros", "ones", "uniform_fan_in", "xavier_uniform", "identity"]


@dataclass(frozen=True, slots=True)
class HeadShape:
    """The sizes a combination is built for.

    Parameters
    ----------
    num_heads : int
        H, the number of query heads.
    head_width : int
        E, the width of one head's output.
    model_width : int
        M, the width of the combined vector.

    Examples
    --------
    >>> HeadShape(num_heads=12, head_width=32, model_width=384).concat_width
    384
    """

    num_heads: int
    head_width: int
    model_width: int

    @property
    def concat_width(self) -> int:
        """H * E, the width of all heads side by side."""
        return self.num_heads * self.head_width


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """Shape and initialisation of one learned parameter.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    init : str or callable
        ``"zeros"``, ``"ones"``, ``"uniform_fan_in"`` (uniform within 1/sqrt(shape[0])
        of 0), ``"xavier_uniform"`` (uniform within sqrt(6 / (shape[0] + shape[1])) of
        0), ``"identity"``, or a function ``(rng, shape) -> array``.
    """

    shape: tuple[int, ...]
    init: NamedInitializer | Initializer = "zeros"


@dataclass(frozen=True, slots=True)
class CombinationPlan:
    """One strategy, as arithmetic that every backend knows how to run.

    ``Y = project(reduce over each group of (head_weights * Z), weight, bias)``: the heads
    are weighted, each run of H / groups contiguous heads is reduced to one (B, T, E)
    array, the groups are laid side by side and projected.

    Parameters
    ----------
    groups : int
        Between 1 and H, a divisor of H. ``groups=H`` is concatenation.
    weight : ndarray, shape (groups * E, M), or None
        The projection; None leaves the (B, T, groups * E) array as it is.
    bias : ndarray, shape (M,), or None
        Added at the end.
    head_weights : float or ndarray, broadcastable to (B, H, T, E), or None
        Factors on the heads; None means 1. Where a factor is exactly 0 the head is left out,
        whatever it holds.
    reduce : {"sum", "max"}
        How the heads of a group become one.
    """

    groups: int
    weight: Array | None = None
    bias: Array | None = None
    head_weights: float | Array | None = None
    reduce: Literal["sum", "max"] = "sum"


@dataclass(frozen=True, slots=True)
class CombinationCost:
    """What one call costs: floating point operations, bytes moved, learned numbers, output rank."""

    flops: int
    bytes: int
    parameters: int
    output_rank: int
