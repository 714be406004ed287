"""Drop whole heads at random while training, concatenate and project.

``Y = concat_h(m_h Z_h) W_O + b`` with ``m_h = H / kept`` for the heads that are kept and 0 for the
others, drawn for each sample; W_O (H*E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import Array, CombinationPlan, HeadShape, Register, hookimpl
from mhakit_builtins.projecting import Projecting

__all__ = ["DropHead"]


class DropHead(Projecting):
    """Dropout of whole heads: each is dropped with probability ``rate``, for each sample anew.

    ``Y = concat_h(m_h Z_h) W_O + b``, where m_h is 0 for a dropped head and H / kept for the
    others, so that the size of the sum stays. Not training, it is ``concat_project``. ``weight``
    (H*E, M) starts uniform within 1/sqrt(H*E) of 0, ``bias`` (M,) at 0.

    Parameters
    ----------
    rate : float
        The probability that a head is dropped, at least 0 and below 1.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``rate`` is outside its range.

    Notes
    -----
    Where all heads of a sample are dropped, its Y is b: nothing is divided by the 0 that were kept.
    With H = 1 that is all it does. The paper changes ``rate`` on a schedule; a schedule belongs to
    the training loop, which builds a `DropHead` of another rate.

    References
    ----------
    Zhou et al., Scheduled DropHead, arXiv:2004.13342.

    Examples
    --------
    >>> heads = np.ones((3, 4, 1, 2))
    >>> plan = DropHead(rate=0.5).plan(heads, {"weight": np.eye(8)}, hidden_states=None,
    ...                                training=True, rng=np.random.default_rng(0))
    >>> plan.head_weights.shape, plan.head_weights.sum(axis=1).ravel().tolist()
    ((3, 4, 1, 1), [4.0, 4.0, 4.0])
    """

    name = "drop_head"
    reference = "arXiv:2004.13342"
    stochastic = True

    def __init__(self, rate: float = 0.1, bias: bool = True) -> None:
        super().__init__(bias)
        if not 0 <= rate < 1:
            raise ParameterError(
                f"rate of 'drop_head' must be at least 0 and below 1, got {rate!r}; "
                "to leave heads out always, use head_mask"
            )
        self.rate = float(rate)

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return 0: what is dropped in training only saves work."""
        return 0

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per head, weighted by this call's draw; unweighted when not training."""
        if not training or rng is None:
            return self.project(heads, parameters)
        B, H, _, _ = heads.shape
        kept = rng.random((B, H)) >= self.rate
        count = np.maximum(kept.sum(axis=1, keepdims=True), 1)  # of none that are kept, each is 0
        scale = (kept * (H / count)).astype(heads.dtype)
        return self.project(heads, parameters, head_weights=scale[:, :, None, None])

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return the parameters as they are: what runs when not training."""
        return parameters["weight"], parameters.get("bias")


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `DropHead`."""
    register(DropHead)
