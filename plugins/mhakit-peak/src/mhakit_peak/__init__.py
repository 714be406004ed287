"""Keep per channel the head output of largest magnitude, and project.

``Y = P W + b`` with ``P[t, e] = Z_p[t, e]``, ``p = argmax_h |Z_h[t, e]|``, W (E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mhakit.plugin_api import (
    Array,
    CombinationPlan,
    HeadCombination,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)

__all__ = ["Peak"]


class Peak(HeadCombination):
    """Project, channel by channel, the output of whichever head is largest in magnitude.

    The sign is kept, and of equally large heads the first is taken. ``weight`` (E, M) starts
    uniform within 1/sqrt(E) of 0, ``bias`` (M,) at 0. It is max pooling over heads, by magnitude;
    no paper is known for it.

    Examples
    --------
    >>> import numpy as np
    >>> heads = np.array([[[[1.0, -2.0]], [[-3.0, 2.0]]]])
    >>> plan = Peak().plan(heads, {"weight": np.eye(2), "bias": np.zeros(2)},
    ...                    hidden_states=None, training=False, rng=None)
    >>> (plan.head_weights * heads).sum(axis=1)
    array([[[-3., -2.]]])
    """

    name = "peak"
    reference = "max pooling over heads, by magnitude"
    linear_in_heads = False

    def parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``weight`` (E, M) and ``bias`` (M,)."""
        return {
            "weight": ParameterSpec((shape.head_width, shape.model_width), "uniform_fan_in"),
            "bias": ParameterSpec((shape.model_width,), "zeros"),
        }

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return one group in which the largest head weighs 1 and the others 0, by channel."""
        winner = np.abs(heads).argmax(axis=1, keepdims=True)
        chosen = np.zeros(heads.shape, heads.dtype)
        np.put_along_axis(chosen, winner, 1, axis=1)
        return CombinationPlan(
            groups=1,
            weight=parameters["weight"],
            bias=parameters["bias"],
            head_weights=chosen,
        )


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Peak`."""
    register(Peak)
