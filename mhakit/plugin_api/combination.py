"""The interface of a head combination: heads' outputs Z, (B, H, T, E), to (B, T, M).

Subclass `HeadCombination`, say the strategy as a `CombinationPlan`, register the class in the
hook, and name the module under the entry point group ``mhakit``.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mhakit.plugin_api.plan import (
    Array,
    CombinationCost,
    CombinationPlan,
    HeadShape,
    ParameterSpec,
)

__all__ = ["HeadCombination"]


class HeadCombination(ABC):
    """A way of combining heads. Subclass it and give either `plan` or `forward`.

    A strategy that gives a plan writes no kernel: mhakit runs it, and its gradient, on every
    backend. Options of a strategy are constructor arguments with defaults. No state is kept on
    ``self`` between calls: one object serves many layers and threads. Arrays come read-only, in
    the computation dtype, float64 or float32; what is returned is of that dtype too.

    Attributes
    ----------
    name : str
        What users pass as ``combine=``.
    reference : str
        The paper, as ``"arXiv:1706.03762"``, or what else says where it comes from.
    uses_hidden_states : bool
        Whether it reads the layer's input x, (B, T, M).
    linear_in_heads : bool
        Whether the output is linear in Z, up to a constant, for given parameters, x and draws.
    stochastic : bool
        Whether training draws random numbers.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    uses_hidden_states: ClassVar[bool] = False
    linear_in_heads: ClassVar[bool] = True
    stochastic: ClassVar[bool] = False

    def validate(self, shape: HeadShape) -> None:  # noqa: B027  # any sizes do, by default
        """Raise ParameterError, with the way out, where these sizes cannot be combined so."""

    def parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return the learned parameters by name; the projection is ``weight``, ``bias``."""
        return {}

    def plan(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> CombinationPlan | None:
        """Return the strategy as a plan, or None where no plan says it.

        Parameters
        ----------
        heads : ndarray, shape (B, H, T, E)
            The heads' outputs, never to be written.
        parameters : mapping of str to ndarray
            What `parameters` asked for, by name.
        hidden_states : ndarray, shape (B, T, M), or None
            The layer's input, given where `uses_hidden_states` says that it is read.
        training : bool
            Whether this is a training step.
        rng : numpy.random.Generator or None
            The only source of randomness, given where `stochastic` and training.
        """
        return None

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
        """Return the gradients that flow through the plan's fields; by default none does.

        Of Y = project(reduce(head_weights * Z)) mhakit differentiates Z itself, ``weight``,
        ``bias`` and ``head_weights``. Here you only say how the fields were made of Z, x and the
        parameters. Not needed where a field is a parameter itself, or a view that reshapes one
        (``parameters["gain"][:, None, None]``): mhakit returns that gradient under the
        parameter's name, and this must not return the name again.

        Parameters
        ----------
        d_plan : CombinationPlan
            dL/d(field) in the shape of each array field, ``head_weights`` summed over the axes
            it was broadcast along; None where the field is None or a number. Not to be written.
        heads, parameters, hidden_states, training
            As `plan` got them.
        plan : CombinationPlan
            The object that `plan` returned, so that nothing is drawn or computed twice. A
            subclass of CombinationPlan may carry more from there to here.

        Returns
        -------
        d_heads : ndarray, shape (B, H, T, E), or None
            What flows to Z through the fields, without the direct path.
        d_hidden_states : ndarray, shape (B, T, M), or None
            None unless `uses_hidden_states`.
        d_parameters : dict of str to ndarray
            One for each parameter that is no field of the plan, in its shape.

        Examples
        --------
        Gates s = sigmoid(x W_g), one a head, ``plan.head_weights`` (B, H, T, 1), W_g (M, H):

        >>> def plan_vjp(self, d_plan, heads, parameters, *, plan, hidden_states, training):
        ...     s = plan.head_weights
        ...     d_logits = (d_plan.head_weights * s * (1 - s))[..., 0].swapaxes(1, 2)
        ...     d_gate = np.einsum("btm,bth->mh", hidden_states, d_logits)
        ...     return None, d_logits @ parameters["gate"].T, {"gate": d_gate}
        """
        return None, None, {}

    def forward(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> tuple[Array, object]:
        """Return the output, (B, T, M), and whatever `backward` needs.

        Only asked of a strategy whose `plan` returns None; runs on the CPU. Arguments as for
        `plan`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define plan() or forward()")

    def backward(
        self, d_output: Array, residuals: object, parameters: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        """Return the gradients of a strategy that `forward` computes.

        Parameters
        ----------
        d_output : ndarray, shape (B, T, M)
            dL/dY, never to be written.
        residuals : object
            What `forward` returned beside the output. It may be asked for more than once, so
            leave it as it is.
        parameters : mapping of str to ndarray
            As `forward` got them.

        Returns
        -------
        d_heads : ndarray, shape (B, H, T, E)
        d_hidden_states : ndarray, shape (B, T, M), or None
            None unless `uses_hidden_states`.
        d_parameters : dict of str to ndarray
            One for each parameter, in its shape.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward()")

    def fold(
        self, parameters: Mapping[str, Array], shape: HeadShape
    ) -> tuple[Array, Array | None] | None:
        """Return the (H*E, M) matrix and (M,) bias that do the same, or None where none do.

        They must do what `plan` or `forward` does outside training, whatever Z and x.
        """
        return None

    def cost(self, shape: HeadShape, B: int, T: int) -> CombinationCost:
        """Return what combining (B, H, T, E) costs: by default weighting, reducing, projecting.

        Define it where `parameters` has no ``weight`` that projects, or where `plan` itself
        computes much (gates, routes). Bytes are those of float32.
        """
        specs = self.parameters(shape)
        count = sum(int(np.prod(spec.shape)) for spec in specs.values())
        projection = specs.get("weight")
        inner, M = projection.shape if projection else (shape.head_width, shape.model_width)
        reads = B * T * shape.concat_width
        return CombinationCost(
            flops=reads + 2 * B * T * inner * M,
            bytes=4 * (reads + count + B * T * M * (1 + self.uses_hidden_states)),
            parameters=count,
            output_rank=min(inner, M),
        )
