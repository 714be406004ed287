"""Take the largest head, channel by channel, and project.

``Y = max_h(Z_h) W + b``, with Z_h (T, E), W (E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.plugin_api import Array, CombinationPlan, Register, hookimpl
from mhakit_builtins.projecting import Projecting

__all__ = ["Max"]


class Max(Projecting):
    """Take for every channel the largest of the heads' outputs, then project.

    ``Y = max_h(Z_h) W + b``. ``weight`` (E, M) starts uniform within 1/sqrt(E) of 0, ``bias`` (M,)
    at 0. The gradient goes to the head that was largest, among equals to the first.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Notes
    -----
    A baseline: no paper is known that pools the outputs of heads so. Only one head in H gets a
    gradient for a channel, a NaN in any head wins, and no matrix does the same: there is no fold.
    As ``average``, it is no drop-in for heads that were trained with ``concat_project``.

    Examples
    --------
    >>> import mhakit
    >>> heads = np.array([[[[1.0, -2.0]], [[-3.0, 2.0]]]])  # two heads, one word
    >>> mhakit.combine(heads, Max(bias=False), {"weight": np.eye(2)})
    array([[[1., 2.]]])
    """

    name = "max"
    reference = "a baseline: max pooling over heads"
    linear_in_heads = False

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
        """Return one group of all heads, reduced by their maximum."""
        return self.project(heads, parameters, reduce="max")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Max`."""
    register(Max)
