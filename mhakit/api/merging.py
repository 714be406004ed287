"""Attention over parts of the sources -> attention over all of them."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from mhakit import backends
from mhakit.api.arguments import Layout, by_head, empty_beside, handed_back
from mhakit.errors import DTypeError, ParameterError, ShapeError
from mhakit.problem import computation_dtype
from mhakit.validation import (
    as_float_array,
    require_layout,
    require_one_place,
    require_same_dtype,
)

__all__ = ["merge_attention"]

Array = NDArray[Any]


def merge_attention(
    *parts: tuple[ArrayLike, ArrayLike], layout: Layout = "BHTD", backend: str | None = None
) -> tuple[Array, Array]:
    """Merge attention over disjoint sets of sources into attention over all of them, exactly.

    Parameters
    ----------
    *parts : (output, lse)
        One pair for each set, as ``attention(…, return_lse=True)`` gives them: output
        (B, H, T, E), lse (B, H, T). At most one part may have counted the sinks.
    layout : {"BHTD", "BTHD"}
        Axis order of the outputs, given and returned.
    backend : {None, "cpu", "cuda", "reference"}
        As in `attention`.

    Returns
    -------
    output : ndarray, shape (B, H, T, E)
        In the parts' dtype. 0 where every part's lse is -inf.
    lse : ndarray, shape (B, H, T)
        In the computation dtype; -inf where every part's is.

    Raises
    ------
    ShapeError, DTypeError, ParameterError, BackendUnavailable
        As `attention` does.

    References
    ----------
    Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory", arXiv:2112.05682, section 2.

    Examples
    --------
    >>> import mhakit, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = (rng.standard_normal((2, 6, 4)) for _ in range(3))
    >>> halves = [
    ...     mhakit.attention(query, key[:, part], value[:, part], return_lse=True)
    ...     for part in (slice(0, 3), slice(3, 6))
    ... ]
    >>> output, lse = mhakit.merge_attention(*halves)
    >>> np.allclose(output, mhakit.attention(query, key, value))
    True
    """
    require_layout(layout)
    if not parts:
        raise ParameterError(
            "merge_attention must be given one (output, lse) pair or more, got none"
        )
    outputs: dict[str, Array] = {}
    lses: list[Array] = []
    for i, part in enumerate(parts):
        if not isinstance(part, tuple) or len(part) != 2:
            raise ParameterError(
                f"part {i} must be a pair (output, lse), got {type(part).__name__}; "
                "attention(…, return_lse=True) gives one"
            )
        outputs[f"output {i}"] = as_float_array(part[0], f"output {i}", placed=True)
        lses.append(as_float_array(part[1], f"lse {i}", placed=True))
    require_one_place(outputs | {f"lse {i}": lse for i, lse in enumerate(lses)})
    require_same_dtype(outputs)
    first = outputs["output 0"]
    if first.ndim not in (3, 4):
        raise ShapeError(f"output 0 must be (B, H, T, E) or (H, T, E), got shape {first.shape}")
    batched = first.ndim == 4
    real = computation_dtype(first.dtype)
    views = [by_head(array, layout, batched) for array in outputs.values()]
    for i, (array, lse) in enumerate(zip(outputs.values(), lses, strict=True)):
        if array.shape != first.shape:
            raise ShapeError(
                f"output {i} must have the shape of output 0, {first.shape}, "
                f"got shape {array.shape}"
            )
        rows = views[0].shape[:3] if batched else views[0].shape[1:3]
        if lse.shape != rows:
            letters = "(B, H, T)" if batched else "(H, T)"
            raise ShapeError(f"lse {i} must be {letters} = {rows}, got shape {lse.shape}")
        if lse.dtype != real:
            raise DTypeError(f"lse {i} must be {real.name}, got {lse.dtype.name}")
    engine = backends.select(backend, first)
    output = empty_beside(first, first.shape, first.dtype, "output")
    merged = empty_beside(first, views[0].shape[:3], real, "lse")
    engine.merge(
        views,
        [lse if batched else lse[None] for lse in lses],
        by_head(output, layout, batched),
        merged,
    )
    merged = handed_back(merged)
    return handed_back(output), merged if batched else merged[0]
