"""Read the parameters of ``torch.nn.MultiheadAttention``, by their names there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from mhakit.errors import ParameterError, ShapeError
from mhakit.validation import as_float_array

__all__ = ["read_torch_state"]

Array = NDArray[Any]

WEIGHTS = ("in_proj_weight", "out_proj.weight")
BIASES = ("in_proj_bias", "out_proj.bias")
NOT_CARRIED = {
    "bias_k": "a learned extra source (add_bias_kv=True)",
    "bias_v": "a learned extra source (add_bias_kv=True)",
    "q_proj_weight": "projections of other widths (kdim or vdim)",
    "k_proj_weight": "projections of other widths (kdim or vdim)",
    "v_proj_weight": "projections of other widths (kdim or vdim)",
}


def read_torch_state(state: Mapping[str, Any], num_heads: int) -> tuple[int, dict[str, Array]]:
    """Return M and the layer's parameters, by the layer's names and in its shapes.

    The rows of ``in_proj_weight`` (3M, M) are those of query, key and value one after the other,
    in each of them D rows a head; its products are ``x @ in_proj_weight.T``.
    """
    arrays = _arrays(state)
    stacked, out = arrays["in_proj_weight"], arrays["out_proj.weight"]
    M = out.shape[0] if out.ndim else 0
    biased = "in_proj_bias" in arrays
    shapes = {
        "in_proj_weight": (3 * M, M),
        "out_proj.weight": (M, M),
        "in_proj_bias": (3 * M,),
        "out_proj.bias": (M,),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            raise ShapeError(
                f"{name} must have shape {shapes[name]} as out_proj.weight has M={M} rows, "
                f"got shape {array.shape}"
            )
    if M % num_heads:
        raise ParameterError(f"num_heads must divide M={M} of out_proj.weight, got {num_heads}")
    D = M // num_heads
    parameters: dict[str, Array] = {"combine.weight": out.T}
    for block, name in enumerate(("query", "key", "value")):
        rows = slice(block * M, (block + 1) * M)
        parameters[f"{name}_weight"] = stacked[rows].reshape(num_heads, D, M).swapaxes(1, 2)
        if biased:
            parameters[f"{name}_bias"] = arrays["in_proj_bias"][rows].reshape(num_heads, D)
    if biased:
        parameters["combine.bias"] = arrays["out_proj.bias"]
    return M, parameters


def _arrays(state: Mapping[str, Any]) -> dict[str, Array]:
    """Return the four or two arrays of a state, or raise for a key that is missing or unknown."""
    if not isinstance(state, Mapping):
        raise ParameterError(
            f"state must be a mapping of names to arrays, got {type(state).__name__}"
        )
    names = WEIGHTS + BIASES
    for key in state:
        if key in NOT_CARRIED:
            raise ParameterError(
                f"state must hold {', '.join(names)} alone, got {key!r}: "
                f"{NOT_CARRIED[key]} cannot be carried over"
            )
        if key not in names:
            raise ParameterError(f"state must hold {', '.join(names)} alone, got {key!r}")
    needed = names if any(name in state for name in BIASES) else WEIGHTS
    for name in needed:
        if name not in state:
            raise ParameterError(f"state must hold {', '.join(needed)}, got none named {name!r}")
    return {name: as_float_array(state[name], name) for name in needed}
