"""What the strategies share that weigh the heads, reduce them to groups and project.

A strategy of this kind says three things: into how many groups H heads are reduced, what it
learns beside the projection, and what the heads are weighed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from mhakit.plugin_api import (
    Array,
    CombinationCost,
    CombinationPlan,
    HeadCombination,
    HeadShape,
    ParameterSpec,
)

__all__ = ["Projecting"]


class Projecting(HeadCombination):
    """A combination that ends in a projection by ``weight``, and by ``bias`` where there is one.

    ``Y = project(reduce over each group of (head_weights * Z), W, b)``. ``weight``
    (groups * E, M) starts uniform within 1/sqrt(groups * E) of 0, ``bias`` (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Examples
    --------
    >>> class Pairs(Projecting):
    ...     def groups(self, num_heads):
    ...         return num_heads // 2
    >>> Pairs().parameters(HeadShape(num_heads=4, head_width=8, model_width=16))["weight"].shape
    (16, 16)
    """

    def __init__(self, bias: bool = True) -> None:
        self.bias = bias

    def groups(self, num_heads: int) -> int:
        """Return how many groups H heads are reduced to; each head stays alone by default."""
        return num_heads

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return what is learned beside the projection: nothing by default."""
        return {}

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return what one word spends on its heads' factors and on applying them: 0 by default."""
        return 0

    def parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``weight`` (groups * E, M), ``bias`` (M,) where there is one, and the rest."""
        inner = self.groups(shape.num_heads) * shape.head_width
        specs = {
            **self.weighing_parameters(shape),
            "weight": ParameterSpec((inner, shape.model_width), "uniform_fan_in"),
        }
        if self.bias:
            specs["bias"] = ParameterSpec((shape.model_width,), "zeros")
        return specs

    def project(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        head_weights: float | Array | None = None,
        reduce: Literal["sum", "max"] = "sum",
    ) -> CombinationPlan:
        """Return the plan that weighs the heads so, reduces them to the groups and projects."""
        return CombinationPlan(
            groups=self.groups(heads.shape[1]),
            weight=parameters["weight"],
            bias=parameters.get("bias"),
            head_weights=head_weights,
            reduce=reduce,
        )

    def cost(self, shape: HeadShape, B: int, T: int) -> CombinationCost:
        """Return what combining (B, H, T, E) costs; exponentials, roots, divisions count as one."""
        H, E, M = shape.num_heads, shape.head_width, shape.model_width
        groups = self.groups(H)
        flops = self.weighing_flops(shape) + (H - groups) * E + 2 * groups * E * M + self.bias * M
        return replace(super().cost(shape, B, T), flops=B * T * flops)
