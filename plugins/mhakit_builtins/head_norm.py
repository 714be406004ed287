"""Normalise each head by its own root mean square, concatenate and project.

``Y = concat_h(a_h * Z_h / rms(Z_h)) W_O + b`` with ``rms(z) = sqrt(mean(z^2) + eps)`` over E;
a (H, E), W_O (H*E, M), b (M,).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import (
    Array,
    CombinationPlan,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)
from mhakit_builtins.projecting import Projecting

__all__ = ["HeadNorm"]


class HeadNorm(Projecting):
    """Give every head of every word the same size before they are projected.

    ``Y = concat_h(a_h * Z_h / rms(Z_h)) W_O + b``, ``rms(z) = sqrt(mean(z^2) + eps)`` over E.
    ``gain`` a (H, E) starts at 1, ``weight`` (H*E, M) uniform within 1/sqrt(H*E) of 0, ``bias``
    (M,) at 0.

    Parameters
    ----------
    eps : float
        Added to the mean square; above 0, so that a head of zeros, which saw nothing, stays 0.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``eps`` is not above 0.

    Notes
    -----
    How sure a head was, the length of Z_h, is lost: only its direction reaches Y, and the second
    version of the differential transformer dropped the norm for the trouble it made late in
    training. Not linear in Z: there is no fold. A head whose mean square overflows gives NaN; it
    does not vanish.

    References
    ----------
    Sun et al., Retentive Network, arXiv:2307.08621 (a norm for each head); Ye et al., Differential
    Transformer, arXiv:2410.05258 (RMSNorm for each head, which this is, without its fixed factor).

    Examples
    --------
    >>> import mhakit
    >>> heads = np.array([[[[3.0, 4.0]], [[0.3, 0.4]]]])  # two heads of one direction
    >>> learned = {"gain": np.ones((2, 2)), "weight": np.eye(4)}
    >>> mhakit.combine(heads, HeadNorm(eps=1e-12, bias=False), learned).round(3)
    array([[[0.849, 1.131, 0.849, 1.131]]])
    """

    name = "head_norm"
    reference = "arXiv:2307.08621"
    linear_in_heads = False

    def __init__(self, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(bias)
        if not eps > 0:
            raise ParameterError(
                f"eps of 'head_norm' must be above 0, got {eps!r}; a head that saw nothing is 0, "
                "and nothing may be divided by its size"
            )
        self.eps = float(eps)

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``gain`` (H, E), ones."""
        return {"gain": ParameterSpec((shape.num_heads, shape.head_width), "ones")}

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return 2 * H * E for the squares, H * E to weigh, four operations for each 1 / rms."""
        return 3 * shape.concat_width + 4 * shape.num_heads

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per head, weighted 1 / rms, with the gain in the projection's rows."""
        weight = parameters["gain"].reshape(-1, 1) * parameters["weight"]
        return self.project(
            heads, {**parameters, "weight": weight}, head_weights=self._inverse_rms(heads)
        )

    def plan_vjp(
        self,
        d_plan: CombinationPlan,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        plan: CombinationPlan,
        hidden_states: Array | None,
        training: bool,
    ) -> tuple[Array | None, Array | None, dict[str, Array]]:
        """Return the gradients of Z, through 1 / rms, and of the gain and W_O multiplied by it."""
        factors = np.asarray(plan.head_weights)
        d_factors = np.asarray(d_plan.head_weights)
        d_heads = (-d_factors * factors**3 / heads.shape[3]) * heads
        gain, weight, d_rows = parameters["gain"], parameters["weight"], np.asarray(d_plan.weight)
        return (
            d_heads,
            None,
            {
                "gain": np.einsum("im,im->i", d_rows, weight).reshape(gain.shape),
                "weight": gain.reshape(-1, 1) * d_rows,
            },
        )

    def _inverse_rms(self, heads: Array) -> Array:
        """Return 1 / rms, (B, H, T, 1)."""
        mean = np.einsum("bhte,bhte->bht", heads, heads)[..., None] / heads.dtype.type(
            heads.shape[3]
        )
        factors = 1 / np.sqrt(mean + heads.dtype.type(self.eps))
        # 1 / inf is 0, and a head of weight 0 is left out: an overflow must be seen
        return np.asarray(np.where(factors == 0, heads.dtype.type(np.nan), factors))


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `HeadNorm`."""
    register(HeadNorm)
