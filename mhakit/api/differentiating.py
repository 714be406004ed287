"""Combine heads and pull gradients back: through the plan, and through how the plan was made.

mhakit differentiates what a plan says; the plugin's ``plan_vjp`` carries on from the plan's
fields to what they were made of. A field that is a parameter itself needs no such step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit import backends, registry
from mhakit.api.answering import GradientAnswer
from mhakit.api.asking import Question, as_heads, ask, read_only
from mhakit.api.parameters import Rng, Speaking
from mhakit.api.planning import as_plan, ask_for_plan, output_shape, run_forward
from mhakit.errors import PluginError, ShapeError
from mhakit.plugin_api import CombinationPlan, HeadCombination
from mhakit.validation import as_float_array, empty

__all__ = ["CombinationGradients", "combine_vjp"]

Array = NDArray[Any]

FIELDS = ("head_weights", "weight", "bias")


class CombinationGradients(NamedTuple):
    """What `combine_vjp` pulls back, each in the shape and dtype of what it belongs to."""

    heads: Array
    """dL/dZ, (B, H, T, E) or (H, T, E)"""
    hidden_states: Array | None
    """dL/dx, (B, T, M) or (T, M); None where the combination does not read the layer's input"""
    parameters: dict[str, Array]
    """one for each learned parameter, by name"""


class _Parts(NamedTuple):
    """The same with B and in the computation dtype, in memory that nobody else sees."""

    heads: Array
    hidden_states: Array | None
    parameters: dict[str, Array]


def combine_vjp(
    heads: ArrayLike,
    combination: str | type[HeadCombination] | HeadCombination = "concat_project",
    parameters: Mapping[str, ArrayLike] | None = None,
    *,
    hidden_states: ArrayLike | None = None,
    training: bool = False,
    rng: Rng = None,
    backend: str | None = None,
) -> tuple[Array, Callable[[ArrayLike], CombinationGradients]]:
    """Combine the heads' outputs, and return how to pull a gradient back to what they came from.

    Parameters
    ----------
    heads : ndarray, shape (B, H, T, E) or (H, T, E)
        The heads' outputs; float64, float32, float16 or bfloat16.
    combination : str, type or HeadCombination
        An installed name (`mhakit.combinations` lists them), a class, or an object of one.
    parameters : mapping of str to ndarray
        The combination's learned parameters by name, of any float dtype, read in the
        computation dtype.
    hidden_states : ndarray, shape (B, T, M) or (T, M)
        The layer's input, for combinations that read it.
    training : bool
        Whether this is a training step.
    rng : int or numpy.random.Generator
        The source of randomness, for combinations that draw when training. It is drawn from
        once, by the output; the pullback is that of this draw.
    backend : {None, "reference", "cpu", "cuda"}
        Where to compute; None is ``"cpu"``. ``"cuda"`` has no gradients yet.

    Returns
    -------
    output : ndarray, shape (B, T, M) or (T, M)
        What `mhakit.combine` returns.
    pullback : callable
        ``pullback(d_output)``, of the output's shape and any float dtype, returns
        `CombinationGradients`: ``heads``, ``hidden_states`` and ``parameters``, computed in the
        computation dtype and returned in the dtype of what they belong to. It can be called more
        than once, as long as the arrays given here stay as they are. A head whose factor is
        exactly 0 gets the gradient 0, whatever it holds; of equally large heads in a maximum the
        first gets all of it.

    Raises
    ------
    ShapeError
        If an array has the wrong shape, ``d_output`` too.
    DTypeError
        If one of them is no array of floats.
    ParameterError
        If a parameter is missing or unknown, or ``hidden_states`` or ``rng`` is needed.
    PluginError
        If the combination is not installed, has no gradient, or breaks a rule of
        `mhakit.plugin_api`.
    BackendUnavailable
        If the backend cannot run here.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 3.2.2.

    Examples
    --------
    >>> import numpy as np, mhakit
    >>> heads = np.ones((2, 4, 5, 8))
    >>> learned = {"weight": np.ones((8, 16)), "bias": np.zeros(16)}
    >>> output, pullback = mhakit.combine_vjp(heads, "average", learned)
    >>> gradients = pullback(np.ones_like(output))
    >>> gradients.heads[0, 0, 0, 0]  # 16 columns, each of weight 1/H
    np.float64(4.0)
    >>> {name: gradient.shape for name, gradient in gradients.parameters.items()}
    {'weight': (8, 16), 'bias': (16,)}
    """
    array, hidden, batched = as_heads(heads, hidden_states)
    given = {} if parameters is None else parameters
    question = ask(
        registry.resolve(combination),
        array,
        given,
        hidden_states=hidden,
        training=training,
        rng=rng,
    )
    module = backends.select(backend, question.heads, gradients=True)
    output, pull = _differentiate(question, module)
    shape = output.shape if batched else output.shape[1:]
    dtypes = {name: as_float_array(given[name], name).dtype for name in question.parameters}

    def pullback(d_output: ArrayLike) -> CombinationGradients:
        dY = as_float_array(d_output, "d_output")
        if dY.shape != shape:
            raise ShapeError(
                f"d_output must have the shape of the output, {shape}, got shape {dY.shape}"
            )
        parts = pull(read_only(dY.reshape(output.shape), question.real))
        dZ = parts.heads.astype(question.dtype, copy=False)
        dx = None
        if hidden is not None and parts.hidden_states is not None:
            dx = parts.hidden_states.astype(hidden.dtype, copy=False)
        return CombinationGradients(
            dZ if batched else dZ[0],
            dx if batched or dx is None else dx[0],
            {n: part.astype(dtypes[n], copy=False) for n, part in parts.parameters.items()},
        )

    return (output if batched else output[0]), pullback


def _differentiate(
    question: Question, module: ModuleType
) -> tuple[Array, Callable[[Array], _Parts]]:
    """Return the output (B, T, M) and its pullback, both in a strategy's own terms."""
    strategy = question.strategy
    asked: Any = ask_for_plan(question, module)
    if asked is None:
        result, residuals = run_forward(question)
        out = empty(result.shape, question.dtype, "the combined output")
        out[...] = result
        return out, lambda dY: _backward(question, residuals, dY)
    plan = as_plan(asked, question)
    out = empty(output_shape(plan, question.heads.shape), question.dtype, "the combined output")
    combined = module.combine_heads(question.heads, plan, out)
    own = dict(_own_fields(asked, question))
    # who defines no plan_vjp, and learns no head_weights, needs no gradient of them
    traced = type(strategy).plan_vjp is not HeadCombination.plan_vjp or "head_weights" in own
    weighs = traced and isinstance(asked.head_weights, np.ndarray)

    def pull(dY: Array) -> _Parts:
        direct, d_plan = module.combine_heads_vjp(question.heads, plan, combined, dY, weighs)
        return _through_plan(question, asked, own, direct, d_plan)

    return out, pull


def _own_fields(plan: CombinationPlan, question: Question) -> Iterator[tuple[str, str]]:
    """Yield (field, parameter) for each field that is a parameter itself, reshaped or not."""
    for field in FIELDS:
        value = getattr(plan, field)
        if isinstance(value, np.ndarray):
            for name, parameter in question.parameters.items():
                if _is_reshaped(value, parameter):
                    yield field, name
                    break


def _is_reshaped(value: Array, parameter: Array) -> bool:
    """Whether both are the same numbers in the same order in the same memory."""
    if value.dtype != parameter.dtype or value.size != parameter.size or not value.size:
        return False
    if value.__array_interface__["data"][0] != parameter.__array_interface__["data"][0]:
        return False
    if value.flags.c_contiguous and parameter.flags.c_contiguous:
        return True
    sides = (
        [(n, step) for n, step in zip(a.shape, a.strides, strict=True) if n > 1]
        for a in (value, parameter)
    )
    return next(sides) == next(sides)


def _through_plan(
    question: Question,
    plan: CombinationPlan,
    own: dict[str, str],
    direct: Array,
    d_plan: CombinationPlan,
) -> _Parts:
    """Add what flows through the plan's fields to the direct path to the heads, (B, H, T, E)."""
    strategy = question.strategy
    fields = {
        field: _locked(d_field)
        for field in FIELDS
        if (d_field := getattr(d_plan, field)) is not None
        and isinstance(getattr(plan, field), np.ndarray)
    }
    gradients: dict[str, Array] = {}
    for field, name in own.items():
        part = getattr(d_plan, field).reshape(question.parameters[name].shape)
        gradients[name] = gradients[name] + part if name in gradients else part
    with Speaking(strategy, "run plan_vjp"):
        result = strategy.plan_vjp(
            CombinationPlan(groups=d_plan.groups, reduce=d_plan.reduce, **fields),
            question.heads,
            question.parameters,
            plan=plan,
            hidden_states=question.hidden_states,
            training=question.training,
        )
    answer = GradientAnswer(question, "plan_vjp", result)
    for name in answer.given:
        if name in gradients:
            raise answer.must(
                f"no gradient of {name!r}, which is a field of its plan that mhakit "
                "differentiates (plan a copy of it to differentiate it yourself)",
                "one",
            )
    learned = {
        name: gradients[name] if name in gradients else answer.parameter(name)
        for name in question.parameters
    }
    through = answer.heads(needed=False)
    return _Parts(direct if through is None else direct + through, answer.hidden(), learned)


def _backward(question: Question, residuals: object, dY: Array) -> _Parts:
    """Ask a strategy that no plan says for its gradients."""
    strategy = question.strategy
    with Speaking(strategy, "run backward"):
        try:
            result = strategy.backward(dY, residuals, question.parameters)
        except NotImplementedError as error:
            raise PluginError(
                f"combination {strategy.name!r} must define backward to be differentiated, "
                "got forward alone"
            ) from error
    answer = GradientAnswer(question, "backward", result)
    dZ = answer.heads(needed=True)
    assert dZ is not None
    return _Parts(
        dZ, answer.hidden(), {name: answer.parameter(name) for name in question.parameters}
    )


def _locked(array: Array) -> Array:
    """View an array so that a plugin cannot write to it."""
    view = array.view()
    view.flags.writeable = False
    return view
