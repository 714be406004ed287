"""Let each word choose its heads: some are shared by all words, of the others it takes the best k.

``Y = concat_h(g_h Z_h) W_O + b``, with S heads shared and R = H - S routed, x (T, M) and
``a = 2 softmax(x W_0)``, W_0 (M, 2). Shared heads have ``g = a_0 S softmax(x W_s)``, W_s (M, S).
The k routed heads of largest x W_r, W_r (M, R), have ``g = a_1 k softmax(those of x W_r)``, the
other routed heads 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

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
from mhakit_builtins.differentiable import linear_vjp, softmax, softmax_vjp
from mhakit_builtins.projecting import Projecting

__all__ = ["MixtureOfHeads"]


class MixtureOfHeads(Projecting):
    """Weigh heads by a router that keeps, for each word, the shared heads and the best k others.

    ``Y = concat_h(g_h Z_h) W_O + b``. Shared heads, the first S, have ``g = a_0 S softmax(x W_s)``;
    of the R = H - S routed heads the k with the largest x W_r have ``g = a_1 k softmax(x W_r)``
    over those k, the others 0, which leaves them out; ``a = 2 softmax(x W_0)`` weighs the two
    kinds. The factors S, k and 2 make an undecided router weigh every chosen head 1.

    ``shared_router`` W_s (M, S), ``router`` W_r (M, R) and ``balance`` W_0 (M, 2) start uniform
    within 1/sqrt(M) of 0, ``weight`` (H*E, M) within 1/sqrt(H*E), ``bias`` (M,) at 0. Without
    shared or without routed heads there is no ``balance``, a = 1, and no router for what is not
    there.

    Parameters
    ----------
    shared_heads : int, optional
        S, between 0 and H; None is a quarter of the heads, rounded down.
    top_k : int, optional
        k, between 1 and R, or 0 where R is 0; None is half of the routed heads, rounded up.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``shared_heads`` or ``top_k`` is no int of at least 0; where it is used, if there are
        fewer heads.

    Notes
    -----
    With k = 1 the one chosen head weighs a_1, whatever its logit was: no gradient reaches W_r, and
    the router does not learn. Nor does a head that no word chooses; the paper's training adds a
    loss that balances them, which belongs to the training loop. Among equal logits the first heads
    are chosen. Leaving a head out here saves none of its attention.

    References
    ----------
    Jin et al., MoH: Multi-Head Attention as Mixture-of-Head Attention, arXiv:2410.11842; the
    renormalised top-k and the factors S, k and 2 as in its authors' github.com/SkyworkAI/MoH.

    Examples
    --------
    >>> shape = HeadShape(num_heads=8, head_width=4, model_width=16)
    >>> strategy = MixtureOfHeads(shared_heads=2, top_k=3)
    >>> {name: spec.shape for name, spec in strategy.weighing_parameters(shape).items()}
    {'shared_router': (16, 2), 'router': (16, 6), 'balance': (16, 2)}
    """

    name = "mixture_of_heads"
    reference = "arXiv:2410.11842"
    uses_hidden_states = True

    def __init__(
        self, shared_heads: int | None = None, top_k: int | None = None, bias: bool = True
    ) -> None:
        super().__init__(bias)
        for option, value in (("shared_heads", shared_heads), ("top_k", top_k)):
            if value is not None and not (isinstance(value, int) and value >= 0):
                raise ParameterError(
                    f"{option} of 'mixture_of_heads' must be None or an int of at least 0, "
                    f"got {value!r}"
                )
        self.shared_heads = shared_heads
        self.top_k = top_k

    def sizes(self, num_heads: int) -> tuple[int, int, int]:
        """Return how many of H heads are shared (S), routed (R) and chosen of those (k)."""
        shared = num_heads // 4 if self.shared_heads is None else self.shared_heads
        routed = num_heads - shared
        return shared, routed, (routed + 1) // 2 if self.top_k is None else self.top_k

    def validate(self, shape: HeadShape) -> None:
        """Raise ParameterError unless H heads can be shared and chosen so."""
        H = shape.num_heads
        shared, routed, chosen = self.sizes(H)
        if routed < 0:
            raise ParameterError(
                f"shared_heads of 'mixture_of_heads' must be at most H={H}, got {shared}; "
                "None shares a quarter"
            )
        if chosen > routed or (routed and not chosen):
            raise ParameterError(
                f"top_k of 'mixture_of_heads' must be between {min(routed, 1)} and the {routed} of "
                f"H={H} heads that are not shared, got {chosen}; None chooses half of them"
            )

    def weighing_parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``shared_router`` (M, S), ``router`` (M, R), ``balance`` (M, 2), where needed."""
        shared, routed, _ = self.sizes(shape.num_heads)
        widths = {"shared_router": shared, "router": routed, "balance": 2 * bool(shared and routed)}
        return {
            name: ParameterSpec((shape.model_width, width), "uniform_fan_in")
            for name, width in widths.items()
            if width
        }

    def weighing_flops(self, shape: HeadShape) -> int:
        """Return the routers, five operations a softmax entry, E for each head that stays."""
        shared, _, chosen = self.sizes(shape.num_heads)
        logits = sum(spec.shape[1] for spec in self.weighing_parameters(shape).values())
        return (2 * shape.model_width + 5) * logits + (shared + chosen) * shape.head_width

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan:
        """Return a group per head, weighted by the word's own routes."""
        assert hidden_states is not None
        routes = self._routes(heads.shape[1], hidden_states, parameters)
        weights = np.concatenate(
            (
                routes.balance[..., :1] * routes.shared * routes.shared.shape[-1],
                routes.balance[..., 1:] * routes.routed * self.sizes(heads.shape[1])[2],
            ),
            axis=-1,
        )
        plan = self.project(heads, parameters, head_weights=weights.transpose(0, 2, 1)[..., None])
        return _RoutedPlan(plan.groups, plan.weight, plan.bias, plan.head_weights, routes=routes)

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
        """Return the gradients of x and the routers, through each softmax and the chosen alone."""
        assert hidden_states is not None
        assert isinstance(plan, _RoutedPlan)
        routes = plan.routes
        S, _, k = self.sizes(heads.shape[1])
        d_weights = np.asarray(d_plan.head_weights)[..., 0].transpose(0, 2, 1)
        d_shared, d_routed = S * d_weights[..., :S], k * d_weights[..., S:]
        d_routed = np.where(routes.routed == 0, 0, d_routed)  # a head left out may hold NaN
        d_balance = np.stack(
            ((d_shared * routes.shared).sum(axis=-1), (d_routed * routes.routed).sum(axis=-1)),
            axis=-1,
        )
        d_logits = {
            "shared_router": softmax_vjp(
                routes.balance[..., :1] * d_shared, routes.shared, axis=-1
            ),
            "router": softmax_vjp(routes.balance[..., 1:] * d_routed, routes.routed, axis=-1),
            "balance": 2 * softmax_vjp(d_balance, routes.balance / 2, axis=-1),
        }
        d_hidden = np.zeros_like(hidden_states)
        gradients = {}
        for name, gradient in d_logits.items():
            if name in parameters:
                d_x, gradients[name] = linear_vjp(gradient, hidden_states, parameters[name])
                d_hidden += d_x
        return None, d_hidden, gradients

    def _routes(self, H: int, hidden_states: Array, parameters: Mapping[str, Array]) -> _Routes:
        """Return the three softmaxes, each (B, T, …): empty or 1 where there is no parameter."""
        shared, routed, chosen = self.sizes(H)
        nothing = hidden_states[..., :0]
        return _Routes(
            softmax(hidden_states @ parameters["shared_router"], axis=-1) if shared else nothing,
            _softmax_of_largest(hidden_states @ parameters["router"], chosen)
            if routed
            else nothing,
            2 * softmax(hidden_states @ parameters["balance"], axis=-1)
            if shared and routed
            else np.ones((*hidden_states.shape[:2], 2), hidden_states.dtype),
        )


class _Routes(NamedTuple):
    """Shared (B, T, S), routed (B, T, R), balance (B, T, 2)."""

    shared: Array
    routed: Array
    balance: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _RoutedPlan(CombinationPlan):
    """A plan that carries its routes to the gradient: a second choice might choose otherwise."""

    routes: _Routes


def _softmax_of_largest(logits: Array, count: int) -> Array:
    """Return softmax over the ``count`` largest along the last axis, the others 0."""
    order = np.argsort(-logits, axis=-1, kind="stable")
    masked = logits.copy()
    np.put_along_axis(masked, order[..., count:], -np.inf, axis=-1)
    return softmax(masked, axis=-1)


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `MixtureOfHeads`."""
    register(MixtureOfHeads)
