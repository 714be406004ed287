"""What a combination answers: its plan, or the output of its forward, held against the rules."""

from __future__ import annotations

from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mhakit.api.asking import Question
from mhakit.api.parameters import Speaking
from mhakit.device import is_device_array
from mhakit.errors import BackendUnavailable, DTypeError, ParameterError, PluginError
from mhakit.plugin_api import CombinationPlan

__all__ = ["as_plan", "ask_for_plan", "output_shape", "run_forward"]

Array = NDArray[Any]

REDUCTIONS = ("sum", "max")


def ask_for_plan(question: Question, module: ModuleType) -> object:
    """Return what a strategy plans, or None where it has a forward instead, which is NumPy's.

    A device runs plans alone, and a plan for heads on a device can only be made from their shape.
    """
    strategy = question.strategy
    try:
        with Speaking(strategy, "plan"):
            plan = strategy.plan(question.heads, question.parameters, **question.given)
    except (PluginError, DTypeError) as error:
        if not is_device_array(question.heads):
            raise
        raise BackendUnavailable(
            f"combination {strategy.name!r} must plan without reading arrays that are on a CUDA "
            f"device, got {error}; copy them to the host"
        ) from error
    if plan is None and module.__name__.endswith(".cuda"):
        raise BackendUnavailable(
            f"combination {strategy.name!r} must return a plan to run on backend 'cuda', got one "
            "that computes in NumPy; use backend='cpu' with heads in host memory"
        )
    return plan


def run_forward(question: Question) -> tuple[Array, object]:
    """Run a strategy that no plan says: its output (B, T, M), and what its backward needs."""
    B, _, T, _ = question.heads.shape
    M, name = question.model_width, question.strategy.name
    with Speaking(question.strategy, "run forward"):
        try:
            result = question.strategy.forward(
                question.heads, question.parameters, **question.given
            )
        except NotImplementedError as error:
            raise PluginError(
                f"combination {name!r} must return a plan or define forward, got neither"
            ) from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise PluginError(
            f"combination {name!r} must return (output, residuals) from forward, "
            f"got {type(result).__name__}"
        )
    output = np.asarray(result[0])
    if output.dtype.kind != "f" or output.ndim != 3 or output.shape != (B, T, M or output.shape[2]):
        raise PluginError(
            f"combination {name!r} must return floats (B, T, M) with B={B}, T={T}"
            f"{'' if M is None else f' and M={M}'} from forward, "
            f"got {output.dtype.name} of shape {output.shape}"
        )
    return output, result[1]


def as_plan(plan: object, question: Question) -> CombinationPlan:
    """Return the plan with its arrays in the computation dtype, or raise PluginError by rule."""
    name, M, real = question.strategy.name, question.model_width, question.real
    shape = question.heads.shape

    def must(rule: str, got: object) -> PluginError:
        return PluginError(f"combination {name!r} must plan {rule}, got {got}")

    def real_array(value: object, field: str) -> Array:
        if type(value) is np.ndarray and value.dtype == real:
            return value
        if is_device_array(value):
            return cast(Array, value)
        try:
            return np.asarray(value).astype(real, casting="same_kind", copy=False)
        except (TypeError, ValueError):
            raise must(f"{field} of floats", np.asarray(value).dtype) from None

    _, H, _, E = shape
    if not isinstance(plan, CombinationPlan):
        raise must("a CombinationPlan or None", type(plan).__name__)
    groups = plan.groups
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer):
        raise must("groups as an int", repr(groups))
    if not 1 <= groups <= H or H % groups:
        raise must(f"groups between 1 and H={H} that divide H", groups)
    if plan.reduce not in REDUCTIONS:
        raise must("reduce 'sum' or 'max'", repr(plan.reduce))
    inner = int(groups) * E
    weight = bias = factors = None
    width = inner
    if plan.weight is not None:
        weight = real_array(plan.weight, "weight")
        if weight.ndim != 2 or weight.shape[0] != inner:
            raise must(f"weight (groups * E, M) with groups * E = {inner}", f"shape {weight.shape}")
        width = weight.shape[1]
    if M is not None and width != M:
        raise must(f"a projection to M={M}", f"{width} columns")
    if plan.bias is not None:
        bias = real_array(plan.bias, "bias")
        if bias.shape != (width,):
            raise must(f"bias (M,) with M={width}", f"shape {bias.shape}")
    if plan.head_weights is not None:
        factors = real_array(plan.head_weights, "head_weights")
        if factors.ndim > 4 or not all(
            size in (1, whole)
            for size, whole in zip(factors.shape[::-1], shape[::-1], strict=False)
        ):
            raise must(
                f"head_weights broadcastable to (B, H, T, E) = {shape}", f"shape {factors.shape}"
            )
    fields = {"weight": weight, "bias": bias, "head_weights": factors}
    if not is_device_array(question.heads):
        for field, value in fields.items():
            if is_device_array(value):
                raise ParameterError(
                    f"the {field} that combination {name!r} plans must lie where heads lie, in "
                    "host memory, got one on a CUDA device; copy one of them"
                )
    as_it_is = all(value is getattr(plan, field) for field, value in fields.items())
    if as_it_is and type(groups) is int:
        return plan
    return CombinationPlan(int(groups), weight, bias, factors, plan.reduce)


def output_shape(plan: CombinationPlan, heads: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (B, T, M) of what a plan makes of heads (B, H, T, E)."""
    B, _, T, E = heads
    return B, T, plan.groups * E if plan.weight is None else plan.weight.shape[1]
