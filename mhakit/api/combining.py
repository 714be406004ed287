"""Combine heads by any installed strategy: check what came, ask the plugin, run what it plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike, NDArray

from mhakit import backends, registry
from mhakit.api.arguments import empty_beside, handed_back
from mhakit.api.asking import Question, as_heads, ask
from mhakit.api.asking_again import asked_before, kind_of_call, remember
from mhakit.api.parameters import Rng
from mhakit.api.planning import as_plan, ask_for_plan, output_shape, run_forward
from mhakit.plugin_api import HeadCombination
from mhakit.validation import empty

__all__ = ["combinations", "combine", "combine_by"]

Array = NDArray[Any]


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
        Where to compute; None is ``"cuda"`` for heads on a CUDA device, else ``"cpu"``. A device
        runs what a combination plans: one whose plan is made from the heads' numbers, or that
        has no plan, raises BackendUnavailable there. Parameters may be on the host even so.

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
    strategy = registry.resolve(combination)
    kind = None
    if training is False and rng is None and strategy is not combination:
        kind = kind_of_call(strategy, heads, parameters, hidden_states)
        if kind is not None:
            known = asked_before(kind, strategy, heads, parameters, hidden_states)
            if known is not None:
                return combine_by(known, backend)
    array, hidden, batched = as_heads(heads, hidden_states)
    question = ask(
        strategy,
        array,
        {} if parameters is None else parameters,
        hidden_states=hidden,
        training=training,
        rng=rng,
    )
    if kind is not None:
        remember(kind, question)
    output = combine_by(question, backend)
    return output if batched else output[0]


def combine_by(question: Question, backend: str | None = None) -> Array:
    """Answer a question about (B, H, T, E): (B, T, M), in memory of its own."""
    module = backends.select(backend, question.heads)
    asked = ask_for_plan(question, module)
    if asked is None:
        output, _ = run_forward(question)
        out = empty(output.shape, question.dtype, "the combined output")
        out[...] = output
        return out
    plan = as_plan(asked, question)
    shape = output_shape(plan, question.heads.shape)
    out = empty_beside(question.heads, shape, question.dtype, "the combined output")
    module.combine_heads(question.heads, plan, out)
    return handed_back(out)
