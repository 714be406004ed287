"""Add the heads up and project the sum.

``Y = (sum_h Z_h) W + b``, with Z_h (T, E), W (E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.plugin_api import Array, CombinationPlan, HeadShape, Register, hookimpl
from mhakit_builtins.projecting import Projecting

__all__ = ["Sum"]


class Sum(Projecting):
    """Add the heads' outputs up, then project the (B, T, E) sum.

    ``Y = (sum_h Z_h) W + b``: ``concat_project`` in which all heads share one W_h, and H times
    ``average`` of the same W. ``weight`` (E, M) starts uniform within 1/sqrt(E) of 0, ``bias``
    (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Notes
    -----
    The sum of H independent heads is sqrt(H) times as large as one of them, and the sum of H equal
    ones H times, where ``average`` never grows: mind what is added to it. As ``average``, it is no
    drop-in for heads that were trained with ``concat_project``.

    References
    ----------
    ``average``, times H: Velickovic et al., Graph Attention Networks, arXiv:1710.10903, equation 6.

    Examples
    --------
    >>> heads = np.array([[[[1.0, 2.0]], [[3.0, 5.0]]]])  # two heads, one word
    >>> plan = Sum(bias=False).plan(heads, {"weight": np.eye(2)}, hidden_states=None,
    ...                             training=False, rng=None)
    >>> plan.groups, plan.head_weights is None
    (1, True)
    """

    name = "sum"
    reference = "average (arXiv:1710.10903), times H"

    def groups(self, num_heads: int) -> int:
        """Return 1: all heads become one."""
        return 1

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return one group of all heads, unweighted."""
        return self.project(heads, parameters)

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return W for each head, one below the other."""
        return np.tile(parameters["weight"], (shape.num_heads, 1)), parameters.get("bias")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Sum`."""
    register(Sum)
