"""A layer read from torch's state: torch's results, and states that cannot be carried over."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.layers import M
from material.places import DATA
from mhakit.errors import DTypeError, ParameterError, ShapeError

torch_layers = SimpleNamespace(**runpy.run_path(str(DATA / "make_torch_layers.py")))
LIVE = ["live"] if find_spec("torch") else []


def torch_case(case, origin):
    """Return what torch computed: as recorded, and where torch is installed also as it does now."""
    if origin == "live":
        return torch_layers.compute(case)
    with np.load(DATA / "torch_layers.npz") as recorded:
        prefix = f"{case}/"
        return {n.removeprefix(prefix): recorded[n] for n in recorded if n.startswith(prefix)}


@pytest.mark.parametrize("origin", ["recorded", *LIVE])
@pytest.mark.parametrize("case", torch_layers.CASES)
def test_a_torch_layer_gives_what_torch_gives(case, origin, backend):
    arrays = torch_case(case, origin)
    state = {n.removeprefix("state/"): a for n, a in arrays.items() if n.startswith("state/")}
    options = torch_layers.CASES[case]
    layer = mhakit.MultiHeadAttention.from_torch_state_dict(state, torch_layers.H)
    output, weights = layer(
        arrays["x"],
        arrays["source"] if options.get("cross") else None,
        causal=options.get("causal"),
        key_lengths=options.get("key_lengths"),
        return_weights=True,
        backend=backend,
    )
    np.testing.assert_allclose(output, arrays["output"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(weights, arrays["weights"], rtol=0, atol=5e-7)


def torch_state(**changes):
    state = {
        "in_proj_weight": draw(3 * M, M),
        "in_proj_bias": draw(3 * M),
        "out_proj.weight": draw(M, M),
        "out_proj.bias": draw(M),
    }
    return {name: value for name, value in (state | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"bias_k": draw(1, 1, M)}, ParameterError, r"got 'bias_k': a learned extra source"),
        ({"bias_v": draw(1, 1, M)}, ParameterError, r"got 'bias_v': a learned extra source"),
        ({"q_proj_weight": draw(M, M)}, ParameterError, r"got 'q_proj_weight': projections of o"),
        ({"k_proj_weight": draw(M, 5)}, ParameterError, r"got 'k_proj_weight': projections of o"),
        ({"v_proj_weight": draw(M, 5)}, ParameterError, r"got 'v_proj_weight': projections of o"),
        (
            {"layer.weight": draw(1)},
            ParameterError,
            r"state must hold .* alone, got 'layer.weight'",
        ),
        ({"in_proj_weight": None}, ParameterError, r"must hold .*got none named 'in_proj_weight'"),
        (
            {"out_proj.weight": None},
            ParameterError,
            r"must hold .*got none named 'out_proj.weight'",
        ),
        ({"in_proj_bias": None}, ParameterError, r"must hold .*got none named 'in_proj_bias'"),
        ({"out_proj.bias": None}, ParameterError, r"must hold .*got none named 'out_proj.bias'"),
        (
            {"in_proj_weight": draw(2 * M, M)},
            ShapeError,
            r"in_proj_weight must have shape \(36, 12\) as out_proj.weight has M=12 rows, got",
        ),
        (
            {"out_proj.weight": draw(M, 5)},
            ShapeError,
            r"out_proj.weight must have shape \(12, 12\)",
        ),
        ({"out_proj.weight": np.array(1.0)}, ShapeError, r"must have shape \(0, 0\)"),
        ({"in_proj_bias": draw(M)}, ShapeError, r"in_proj_bias must have shape \(36,\)"),
        ({"out_proj.bias": draw(M + 1)}, ShapeError, r"out_proj.bias must have shape \(12,\)"),
        ({"out_proj.bias": [0.0] * M}, DTypeError, r"out_proj.bias must be an array, got list"),
    ],
)
def test_a_torch_state_that_cannot_be_carried_over_is_refused_by_name(changes, error, told):
    with pytest.raises(error, match=told):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(**changes), 3)


def test_a_torch_state_needs_a_number_of_heads_that_divides_it():
    with pytest.raises(ParameterError, match=r"num_heads must divide M=12 .*got 5"):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(), 5)
    with pytest.raises(ParameterError, match=r"num_heads must be an int of at least 1, got 0"):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(), 0)


def test_a_torch_state_must_be_a_mapping():
    with pytest.raises(ParameterError, match=r"state must be a mapping .*got list"):
        mhakit.MultiHeadAttention.from_torch_state_dict([], 3)


def test_a_torch_state_is_not_read_into_a_combination_of_another_shape():
    with pytest.raises(
        ParameterError,
        match=r"combine must have a parameter 'weight' of shape \(12, 12\) .*got 'average'.*"
        r"read it as 'concat_project' and change it by combine_with",
    ):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(), 3, combine="average")
