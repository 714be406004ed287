"""Combine heads by any installed strategy: check what came, ask the plugin, run what it plans."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit import backends, registry
from mhakit.api.parameters import Rng, as_generator, check_parameters, speaking
from mhakit.errors import ParameterError, PluginError, ShapeError
from mhakit.plugin_api import CombinationPlan, HeadCombination, HeadShape
from mhakit.problem import computation_dtype
from mhakit.validation import as_float_array, empty

__all__ = ["combinations", "combine", "combine_by"]

Array = NDArray[Any]

REDUCTIONS = ("sum", "max")


def combinations() -> tuple[registry.InstalledCombination, ...]:
    """Return the combinations that are installed, with where each came from.

    Returns
    -------
    tuple of InstalledCombination
        In alphabetical order, each with ``name``, ``reference`` (the paper), ``distribution``,
        ``version``, ``module`` and ``cls``.

    Raises
    ------
    PluginError
        If mhakit was never installed, so that there is none.

    Examples
    --------
    >>> import mhakit
    >>> [record.name for record in mhakit.combinations() if record.distribution == "mhakit"][:3]
    ['attention_over_heads', 'average', 'bilinear']
    """
    return registry.installed()


def combine(
    heads: ArrayLike,
    combination: str | type[HeadCombination] | HeadCombination = "concat_project",
    parameters: Mapping[str, ArrayLike] | None = None,
    *,
    hidden_states: ArrayLike | None = None,
    training: bool = False,
    rng: Rng = None,
    backend: str | None = None,
) -> Array:
    """Combine the heads' outputs into one vector per word.

    Parameters
    ----------
    heads : ndarray, shape (B, H, T, E) or (H, T, E)
        The heads' outputs; float64, float32, float16 or bfloat16. Heads that lie in memory as
        (B, T, H, E), as attention with ``layout="BTHD"`` writes them, are concatenated without
        a copy.
    combination : str, type or HeadCombination
        An installed name (`combinations` lists them), a class, or an object of one.
    parameters : mapping of str to ndarray
        The combination's learned parameters by name, of any float dtype, read in the
        computation dtype: ``weight`` (H*E, M) and ``bias`` (M,) for ``concat_project``.
    hidden_states : ndarray, shape (B, T, M) or (T, M)
        The layer's input, for combinations that read it.
    training : bool
        Whether this is a training step.
    rng : int or numpy.random.Generator
        The source of randomness, for combinations that draw when training.
    backend : {None, "reference", "cpu", "cuda"}
        Where to compute; None is by the type of array.

    Returns
    -------
    ndarray, shape (B, T, M) or (T, M)
        In the dtype of ``heads``. Where a head's weight is exactly 0, nothing the head holds
        reaches the result.

    Raises
    ------
    ShapeError
        If ``heads``, ``hidden_states`` or a parameter has the wrong shape.
    DTypeError
        If one of them is no array of floats.
    ParameterError
        If a parameter is missing or unknown, or ``hidden_states`` or ``rng`` is needed.
    PluginError
        If the combination is not installed, or plans what its rules forbid.
    BackendUnavailable
        If the backend cannot run here.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 3.2.2.

    Examples
    --------
    >>> import numpy as np, mhakit
    >>> heads = np.ones((2, 4, 5, 8), np.float32)
    >>> learned = {"weight": np.ones((32, 16)), "bias": np.zeros(16)}
    >>> mhakit.combine(heads, "concat_project", learned).shape
    (2, 5, 16)
    >>> mhakit.combine(heads, "average", {"weight": np.eye(8), "bias": np.zeros(8)})[0, 0, :3]
    array([1., 1., 1.], dtype=float32)
    """
    array = as_float_array(heads, "heads")
    if array.ndim not in (3, 4):
        raise ShapeError(f"heads must be (B, H, T, E) or (H, T, E), got shape {array.shape}")
    batched = array.ndim == 4
    hidden = None if hidden_states is None else as_float_array(hidden_states, "hidden_states")
    if hidden is not None and hidden.ndim != array.ndim - 1:
        letters = "(B, T, M) as heads has B" if batched else "(T, M) as heads has no B"
        raise ShapeError(f"hidden_states must be {letters}, got shape {hidden.shape}")
    output = combine_by(
        registry.resolve(combination),
        array if batched else array[None],
        {} if parameters is None else parameters,
        hidden_states=hidden if hidden is None or batched else hidden[None],
        training=training,
        rng=rng,
        backend=backend,
    )
    return output if batched else output[0]


def combine_by(
    strategy: HeadCombination,
    heads: Array,
    parameters: Mapping[str, Any],
    *,
    model_width: int | None = None,
    hidden_states: Array | None = None,
    training: bool = False,
    rng: Rng = None,
    backend: str | None = None,
) -> Array:
    """Combine (B, H, T, E) by a strategy already found into (B, T, M); M is read off if None.

    The strategy sees read-only arrays in the computation dtype: it can write to nobody's memory
    and need not know of 16-bit floats.
    """
    B, H, T, E = heads.shape
    if H == 0 or E == 0:
        raise ShapeError(f"heads must have H and E of at least 1, got H={H} and E={E}")
    if not isinstance(training, bool | np.bool_):
        raise ParameterError(f"training must be True or False, got {training!r}")
    generator = None if rng is None else as_generator(rng)
    module = backends.select(backend)
    name = strategy.name
    M = _model_width(parameters, hidden_states) if model_width is None else model_width
    if hidden_states is not None and hidden_states.shape != (B, T, M):
        raise ShapeError(
            f"hidden_states must be (B, T, M) with B={B}, T={T} and M={M}, "
            f"got shape {hidden_states.shape}"
        )
    real = computation_dtype(heads.dtype)
    learned = check_parameters(strategy, HeadShape(H, E, H * E if M is None else M), parameters)
    if strategy.uses_hidden_states and hidden_states is None:
        raise ParameterError(
            f"hidden_states must be given, combination {name!r} reads the layer's input, got None"
        )
    if strategy.stochastic and training and generator is None:
        raise ParameterError(
            f"rng must be an int or a Generator, combination {name!r} draws when training, got None"
        )
    seen = _seen(heads, real)
    given: dict[str, Any] = {
        "hidden_states": None if hidden_states is None else _seen(hidden_states, real),
        "training": bool(training),
        "rng": generator if strategy.stochastic and training else None,
    }
    frozen = MappingProxyType({key: _seen(value, real) for key, value in learned.items()})
    with speaking(strategy, "plan"):
        plan = strategy.plan(seen, frozen, **given)
    if plan is None:
        return _forward(strategy, heads, seen, frozen, given, M)
    plan = _checked_plan(name, plan, heads.shape, M, real)
    width = plan.groups * E if plan.weight is None else plan.weight.shape[1]
    out = empty((B, T, width), heads.dtype, "the combined output")
    module.combine_heads(seen, plan, out)
    return out


def _model_width(parameters: Mapping[str, Any], hidden_states: Array | None) -> int | None:
    """Return M, where an argument tells it."""
    if isinstance(parameters, Mapping):
        for name in ("weight", "bias"):
            if name in parameters:
                shape = as_float_array(parameters[name], f"parameters[{name!r}]").shape
                if shape:
                    return int(shape[-1])
    return None if hidden_states is None else int(hidden_states.shape[-1])


def _seen(array: Array, real: np.dtype[Any]) -> Array:
    """Return a read-only view in the computation dtype; 16 bits are widened into a copy."""
    view = array.view() if array.dtype == real else array.astype(real)
    view.flags.writeable = False
    return view


def _forward(
    strategy: HeadCombination,
    heads: Array,
    seen: Array,
    parameters: Mapping[str, Array],
    given: dict[str, Any],
    M: int | None,
) -> Array:
    """Run a strategy that no plan says, (B, T, M) in the heads' dtype and in memory of its own."""
    B, _, T, _ = heads.shape
    with speaking(strategy, "run forward"):
        try:
            result = strategy.forward(seen, parameters, **given)
        except NotImplementedError as error:
            raise PluginError(
                f"combination {strategy.name!r} must return a plan or define forward, got neither"
            ) from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise PluginError(
            f"combination {strategy.name!r} must return (output, residuals) from forward, "
            f"got {type(result).__name__}"
        )
    output = np.asarray(result[0])
    if output.dtype.kind != "f" or output.ndim != 3 or output.shape != (B, T, M or output.shape[2]):
        raise PluginError(
            f"combination {strategy.name!r} must return floats (B, T, M) with B={B}, T={T}"
            f"{'' if M is None else f' and M={M}'} from forward, "
            f"got {output.dtype.name} of shape {output.shape}"
        )
    out = empty(output.shape, heads.dtype, "the combined output")
    out[...] = output
    return out


def _checked_plan(
    name: str, plan: object, shape: tuple[int, ...], M: int | None, real: np.dtype[Any]
) -> CombinationPlan:
    """Return the plan with its arrays in the computation dtype, or raise PluginError by rule."""

    def must(rule: str, got: object) -> PluginError:
        return PluginError(f"combination {name!r} must plan {rule}, got {got}")

    def real_array(value: object, field: str) -> Array:
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
        try:
            np.broadcast_to(factors, shape)
        except ValueError:
            raise must(
                f"head_weights broadcastable to (B, H, T, E) = {shape}", f"shape {factors.shape}"
            ) from None
    return CombinationPlan(int(groups), weight, bias, factors, plan.reduce)
