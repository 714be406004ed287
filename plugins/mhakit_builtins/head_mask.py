"""Multiply each head by a given number, 0 to take it out, concatenate and project.

``Y = concat_h(m_h Z_h) W_O + b``, with m (H,) given, W_O (H*E, M), b (M,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import Array, CombinationCost, CombinationPlan, HeadShape, Register, hookimpl
from mhakit_builtins.projecting import Projecting

__all__ = ["HeadMask"]


class HeadMask(Projecting):
    """Take heads out of a layer without touching its parameters: ablation and pruning.

    ``Y = concat_h(m_h Z_h) W_O + b``. Nothing but the projection is learned: ``weight`` (H*E, M)
    starts uniform within 1/sqrt(H*E) of 0, ``bias`` (M,) at 0.

    Parameters
    ----------
    mask : sequence of H finite numbers, optional
        m: 1 keeps a head as it is, 0 leaves it out, whatever it holds. None keeps all.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``mask`` holds something that is no finite number; where it is used, if it does not hold
        one number for each head.

    Notes
    -----
    The heads that stay are not scaled up for those that went: that is what ablation asks for, and
    `mhakit_builtins.drop_head` does it in training. A masked head's part of W_O gets a gradient of
    0 and so stays as it is.

    References
    ----------
    Michel, Levy and Neubig, Are Sixteen Heads Really Better than One?, arXiv:1905.10650 (the mask
    variables xi_h); Voita et al., Analyzing Multi-Head Self-Attention, arXiv:1905.09418 (its gates
    g_h, once they have been learned).

    Examples
    --------
    >>> import mhakit
    >>> layer = mhakit.MultiHeadAttention(16, 4, combine=HeadMask(mask=(1, 0, 1, 1)), rng=0)
    >>> layer(np.ones((1, 3, 16), np.float32)).shape
    (1, 3, 16)
    """

    name = "head_mask"
    reference = "arXiv:1905.10650"

    def __init__(self, mask: Sequence[float] | None = None, bias: bool = True) -> None:
        super().__init__(bias)
        self.mask = None if mask is None else _numbers(mask)

    def validate(self, shape: HeadShape) -> None:
        """Raise ParameterError unless ``mask`` holds a number for each head."""
        if self.mask is not None and len(self.mask) != shape.num_heads:
            raise ParameterError(
                f"mask of 'head_mask' must hold a number for each of H={shape.num_heads} heads, "
                f"got {len(self.mask)}; pass combine=HeadMask(mask=…) with {shape.num_heads}"
            )

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return E multiplications for each head that is not left out; without a mask, none."""
        return 0 if self.mask is None else shape.head_width * int(np.count_nonzero(self.mask))

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per head, weighted by the mask; without one, unweighted."""
        if self.mask is None:
            return self.project(heads, parameters)
        mask = np.asarray(self.mask, heads.dtype)
        return self.project(heads, parameters, head_weights=mask[:, None, None])

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return m_h W_h for each head."""
        weight = parameters["weight"]
        if self.mask is not None:
            weight = (
                weight * np.repeat(np.asarray(self.mask, weight.dtype), shape.head_width)[:, None]
            )
        return weight, parameters.get("bias")

    def cost(self, shape: HeadShape, B: int, T: int) -> CombinationCost:
        """Return the cost, with the rank that the heads which stay can give."""
        cost = super().cost(shape, B, T)
        if self.mask is None:
            return cost
        kept = int(np.count_nonzero(self.mask)) * shape.head_width
        return replace(cost, output_rank=min(kept, shape.model_width))


def _numbers(mask: Sequence[float]) -> tuple[float, ...]:
    """Return the mask as a tuple of floats, or raise ParameterError."""
    try:
        numbers = tuple(float(number) for number in mask)
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(math.isfinite(number) for number in numbers):
        raise ParameterError(
            f"mask of 'head_mask' must be None or a sequence of H finite numbers, got {mask!r}"
        )
    return numbers


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `HeadMask`."""
    register(HeadMask)
