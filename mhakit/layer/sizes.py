"""The sizes a layer is asked for, checked."""

from __future__ import annotations

from mhakit.errors import ParameterError
from mhakit.validation import as_size

__all__ = ["as_sizes"]


def as_sizes(
    model_width: object,
    num_heads: object,
    num_kv_heads: object | None,
    head_width: object | None,
    value_width: object | None,
) -> tuple[int, int, int, int, int]:
    """Return M, H, G, D, E, with what was left out filled in."""
    M = as_size(model_width, "model_width")
    H = as_size(num_heads, "num_heads")
    G = H if num_kv_heads is None else as_size(num_kv_heads, "num_kv_heads")
    if H % G:
        raise ParameterError(f"num_kv_heads must divide num_heads={H}, got {G}")
    if head_width is None and M % H:
        raise ParameterError(
            f"model_width must be a multiple of num_heads={H} where no head_width is given, "
            f"got {M}; pass head_width"
        )
    D = M // H if head_width is None else as_size(head_width, "head_width")
    E = D if value_width is None else as_size(value_width, "value_width")
    return M, H, G, D, E
