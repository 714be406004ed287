"""Combining heads: the interface of a strategy and what it may plan.

A combination turns the heads' outputs Z, (B, H, T, E), into one vector per word,
(B, T, M). Write a class that says its strategy as a `CombinationPlan`, register it in
the hook, and name the module under the entry point group ``mhakit``; see
``plugins/README.md``.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "CombinationCost",
    "CombinationPlan",
    "HeadCombination",
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


class HeadCombination(ABC):
    """A way of combining heads. Subclass it and give either `plan` or `forward`.

    Options of a strategy are constructor arguments with defaults. No state is kept on
    ``self`` between calls: one object serves many layers and threads.

    Attributes
    ----------
    name : str
        What users pass as ``combine=``.
    reference : str
        The paper, as ``"arXiv:1706.03762"``, or what else says where it comes from.
    uses_hidden_states : bool
        Whether it reads the layer's input x, (B, T, M).
    linear_in_heads : bool
        Whether the output is linear in Z, up to a constant.
    stochastic : bool
        Whether training draws random numbers.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    uses_hidden_states: ClassVar[bool] = False
    linear_in_heads: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def validate(self, shape: HeadShape) -> None:  # noqa: B027  # any sizes do, by default
        """Raise ParameterError, with the way out, where these sizes cannot be combined so."""

    def parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return the learned parameters by name; the projection is ``weight``, ``bias``."""
        return {}

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan | None:
        """Return the strategy as a plan, or None where no plan says it.

        Parameters
        ----------
        heads : ndarray, shape (B, H, T, E)
            The heads' outputs, never to be written.
        parameters : mapping of str to ndarray
            What `parameters` asked for, by name.
        hidden_states : ndarray, shape (B, T, M), or None
            The layer's input, given where `uses_hidden_states` says it is needed.
        training : bool
            Whether this is a training step.
        rng : numpy.random.Generator or None
            The only source of randomness, given where `stochastic` and training.
        """
        return None

    def forward(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> tuple[Array, object]:
        """Return the output, (B, T, M), and whatever a backward pass needs.

        Only asked of a strategy whose `plan` returns None; runs on the CPU.
        """
        raise NotImplementedError(f"{type(self).__name__} must define plan() or forward()")

    def fold(
        self, parameters: Mapping[str, Array], shape: HeadShape
    ) -> tuple[Array, Array | None] | None:
        """Return the (H*E, M) matrix and (M,) bias that do the same, or None where none do."""
        return None

    def cost(self, shape: HeadShape, B: int, T: int) -> CombinationCost:
        """Return what combining (B, H, T, E) costs: by default weighting, reducing, projecting."""
        specs = self.parameters(shape)
        count = sum(int(np.prod(spec.shape)) for spec in specs.values())
        projection = specs.get("weight")
        inner, M = projection.shape if projection else (shape.head_width, shape.model_width)
        reads = B * T * shape.concat_width
        return CombinationCost(
            flops=reads + 2 * B * T * inner * M,
            bytes=4 * (reads + count + B * T * M * (1 + self.uses_hidden_states)),
            parameters=count,
            output_rank=min(inner, M),
        )
