"""The catalogue's gradients, each number of them held against finite differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

import mhakit
from mhakit.plugin_api import HeadShape
from mhakit_builtins.attention_over_heads import AttentionOverHeads
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.hadamard import Hadamard
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.head_norm import HeadNorm
from mhakit_builtins.mixture_of_heads import MixtureOfHeads
from mhakit_builtins.weighted_sum import WeightedSum

B, H, T, E, M = 2, 4, 3, 2, 5
STEP = 2.0**-9
STRATEGIES = {
    **{r.name: r.cls() for r in mhakit.combinations() if r.distribution == "mhakit"},
    "gated_heads with bias": GatedHeads(gate_bias=1),
    "gated_elements with bias": GatedElements(gate_bias=1),
    "head_norm": HeadNorm(eps=1),  # near a head of length 0 the differences have no digits left
    "a head left out": HeadMask((1, 0, 0.5, 1)),
    "no shared heads": MixtureOfHeads(shared_heads=0, top_k=2),
    "shared heads alone": MixtureOfHeads(shared_heads=H, top_k=0),
    "all routed heads": MixtureOfHeads(shared_heads=1, top_k=3),
    "blocks of four": Hadamard(block=4, bias=False),
    "without bias": Bilinear(rank=2, bias=False),
}


def drawn(strategy, seed=3):
    """Return random arrays by name: heads, hidden_states if they are read, the parameters."""
    rng = np.random.default_rng(seed)
    shape = HeadShape(H, E, H * E if isinstance(strategy, Hadamard) else M)
    shapes = {
        "heads": (B, H, T, E),
        **{name: spec.shape for name, spec in strategy.parameters(shape).items()},
    }
    if strategy.uses_hidden_states:
        shapes["hidden_states"] = (B, T, shape.model_width)
    return {name: rng.standard_normal(size) for name, size in shapes.items()}


def run(strategy, arrays, function=mhakit.combine, **keywords):
    learned = {n: a for n, a in arrays.items() if n not in ("heads", "hidden_states")}
    keywords |= {"hidden_states": arrays.get("hidden_states"), "training": True, "rng": 7}
    return function(arrays["heads"], strategy, learned, **keywords)


def numerical(strategy, arrays, d_output):
    """Return for each array dL/d(number), L = <dY, Y>: central differences, extrapolated once."""

    def slope(array, at, step):
        kept = array[at]
        array[at] = kept + step
        above = (run(strategy, arrays, backend="reference") * d_output).sum()
        array[at] = kept - step
        below = (run(strategy, arrays, backend="reference") * d_output).sum()
        array[at] = kept
        return (above - below) / (2 * step)

    gradients = {}
    for name, array in arrays.items():
        gradients[name] = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            fine, coarse = slope(array, at, STEP / 2), slope(array, at, STEP)
            gradients[name][at] = (4 * fine - coarse) / 3
    return gradients


def assert_gradients_are_right(strategy, backend):
    """Allow what extrapolated differences leave, in the size of L and of the gradient."""
    arrays = drawn(strategy)
    output, pullback = run(strategy, arrays, mhakit.combine_vjp, backend=backend)
    np.testing.assert_array_equal(output, run(strategy, arrays, backend=backend))
    d_output = np.random.default_rng(4).standard_normal(output.shape)
    heads, hidden, parameters = pullback(d_output)
    actual = {"heads": heads, **parameters}
    if strategy.uses_hidden_states:
        actual["hidden_states"] = hidden
    else:
        assert hidden is None
    expected = numerical(strategy, arrays, d_output)
    assert set(actual) == set(expected)
    size = np.abs(output * d_output).sum()
    for name, gradient in expected.items():
        assert actual[name].shape == gradient.shape, name
        allowed = STEP**4 * (size + np.abs(gradient).max())
        error = np.abs(actual[name] - gradient).max()
        assert error <= allowed, f"{name}: {error:.2g} is above {allowed:.2g}"


@pytest.mark.parametrize("case", STRATEGIES)
def test_the_gradients_are_those_of_finite_differences(case, backend):
    assert_gradients_are_right(STRATEGIES[case], backend)


def without_inner_product(self, d_plan, heads, parameters, *, plan, hidden_states, training):
    return None, None, {"logits": plan.head_weights.ravel() * d_plan.head_weights.ravel()}


def without_heads(self, *arguments, **keywords):
    return None, *AttentionOverHeads.plan_vjp(self, *arguments, **keywords)[1:]


@pytest.mark.parametrize(
    ("cls", "wrong", "what"),
    [
        (WeightedSum, without_inner_product, "logits"),
        (AttentionOverHeads, without_heads, "heads"),
    ],
)
def test_a_gradient_that_leaves_something_out_is_seen(cls, wrong, what):
    broken = type("Broken", (cls,), {"plan_vjp": wrong})()
    with pytest.raises(AssertionError, match=rf"^{what}: "):
        assert_gradients_are_right(broken, "reference")


def test_a_router_that_chooses_one_head_gets_no_gradient():
    strategy = MixtureOfHeads(shared_heads=1, top_k=1)
    arrays = drawn(strategy)
    output, pullback = run(strategy, arrays, mhakit.combine_vjp, backend="reference")
    _, _, parameters = pullback(np.ones_like(output))
    assert not parameters["router"].any()
    assert parameters["balance"].any()


def test_a_head_that_no_word_chose_gets_a_gradient_of_zero_even_if_it_holds_nan(backend):
    strategy = MixtureOfHeads(shared_heads=1, top_k=2)
    arrays = drawn(strategy)
    arrays["router"][:, 1] = (
        0  # each word has two of three routed heads: head 2 is above or below 0
    )
    arrays["router"][:, [0, 2]] = np.abs(arrays["router"][:, [0, 2]])
    arrays["hidden_states"] = np.abs(arrays["hidden_states"])
    arrays["heads"][:, 2] = np.nan
    output, pullback = run(strategy, arrays, mhakit.combine_vjp, backend=backend)
    heads, hidden, parameters = pullback(np.ones_like(output))
    assert np.isfinite(output).all()
    assert not heads[:, 2].any()
    for gradient in (heads, hidden, *parameters.values()):
        assert np.isfinite(gradient).all()
