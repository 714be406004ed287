"""Average the heads and project the average.

``Y = mean_h(Z_h) W + b``, with Z_h (T, E), W (E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.plugin_api import Array, CombinationPlan, HeadShape, Register, hookimpl
from mhakit_builtins.projecting import Projecting

__all__ = ["Average"]


class Average(Projecting):
    """Average the heads' outputs, then project the (B, T, E) average.

    ``Y = mean_h(Z_h) W + b``: 1/H of the parameters and of the projection's work of
    ``concat_project``, and an output of rank E at most. ``weight`` (E, M) starts uniform within
    1/sqrt(E) of 0, ``bias`` (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Notes
    -----
    This is no drop-in for heads that were trained with ``concat_project``. The heads of such a
    layer write to different directions, and their average mixes them up, however W and b are
    refitted. Train with it from the start.

    References
    ----------
    Velickovic et al., Graph Attention Networks, arXiv:1710.10903, equation 6 (last layer); Lim et
    al., Temporal Fusion Transformers, arXiv:1912.09363, section 4.4 (values shared by the heads).

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> Average().parameters(shape)["weight"].shape
    (8, 16)
    """

    name = "average"
    reference = "arXiv:1710.10903"

    def groups(self, num_heads: int) -> int:
        """Return 1: all heads become one."""
        return 1

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return the H * E multiplications by 1/H."""
        return shape.concat_width

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return one group of all heads, each weighted 1/H."""
        return self.project(heads, parameters, head_weights=1 / heads.shape[1])

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return W / H for each head, one below the other."""
        share = parameters["weight"] / np.asarray(shape.num_heads, parameters["weight"].dtype)
        return np.tile(share, (shape.num_heads, 1)), parameters.get("bias")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Average`."""
    register(Average)
