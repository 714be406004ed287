"""Scale each head by a learned number, concatenate and project.

``Y = concat_h(g_h Z_h) W_O + b``, with g (H,), W_O (H*E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.plugin_api import (
    Array,
    CombinationPlan,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)
from mhakit_builtins.projecting import Projecting

__all__ = ["HeadScale"]


class HeadScale(Projecting):
    """Scale each head by a learned number, lay them side by side and project.

    ``Y = concat_h(g_h Z_h) W_O + b``. ``gain`` g (H,) starts at 1, so that it begins as
    ``concat_project`` of the same W_O; ``weight`` (H*E, M) uniform within 1/sqrt(H*E) of 0,
    ``bias`` (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    Notes
    -----
    g scales the heads, before W_O: a factor on what W_O returns would scale model channels, which
    hold something of every head. A head whose gain is exactly 0 is left out, whatever it holds, and
    the gain still gets its gradient.

    References
    ----------
    Shleifer, Weston and Ott, NormFormer, arXiv:2110.09456 (HeadScale).

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> HeadScale().parameters(shape)["gain"]
    ParameterSpec(shape=(4,), init='ones')
    """

    name = "head_scale"
    reference = "arXiv:2110.09456"

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``gain`` (H,), ones."""
        return {"gain": ParameterSpec((shape.num_heads,), "ones")}

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return the H * E multiplications."""
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
        """Return a group per head, weighted by ``gain`` itself: its gradient is the host's."""
        return self.project(heads, parameters, head_weights=parameters["gain"][:, None, None])

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return g_h W_h for each head."""
        rows = np.repeat(parameters["gain"], shape.head_width)[:, None]
        return rows * parameters["weight"], parameters.get("bias")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `HeadScale`."""
    register(HeadScale)
