"""Concatenate the heads and project: the combination of the original transformer.

``Y = concat_h(Z_h) W_O + b``, with Z_h (T, E), W_O (H*E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.plugin_api import Array, CombinationPlan, HeadShape, Register, hookimpl
from mhakit_builtins.projecting import Projecting

__all__ = ["ConcatProject"]


class ConcatProject(Projecting):
    """Lay the heads side by side and project them with one matrix.

    ``Y = concat_h(Z_h) W_O + b``, which is ``sum_h Z_h W_h + b`` with W_h the (E, M) rows of W_O
    that belong to head h: every strategy that is linear and independent of the input can be
    written so. ``weight`` (H*E, M) starts uniform within 1/sqrt(H*E) of 0, ``bias`` (M,) at 0.

    Parameters
    ----------
    bias : bool
        Whether b is there.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 3.2.2.

    Examples
    --------
    >>> shape = HeadShape(num_heads=4, head_width=8, model_width=16)
    >>> ConcatProject().parameters(shape)["weight"].shape
    (32, 16)
    """

    name = "concat_project"
    reference = "arXiv:1706.03762"

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per head, unweighted, projected."""
        return self.project(heads, parameters)

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return the parameters as they are."""
        return parameters["weight"], parameters.get("bias")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `ConcatProject`."""
    register(ConcatProject)
