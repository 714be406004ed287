"""Projecting to query, key and value: every head's own weights, held as one matrix.

Self-attention multiplies by the whole (M, H*D + G*D + G*E) matrix at once; a head's
weights, and its query, key and value, are views.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.api.parameters import require_mapping
from mhakit.backends import select
from mhakit.errors import DTypeError, ParameterError, ShapeError
from mhakit.problem import computation_dtype
from mhakit.validation import as_float_array

__all__ = ["Projections", "as_learned"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Projections:
    """The learned matrix (M, H*D + G*D + G*E) and bias vector, and the sizes they are read by.

    Setting parameters makes a new object: copies of a layer never see one another's.
    """

    model_width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    value_width: int
    weight: Array
    bias: Array | None

    @classmethod
    def random(
        cls,
        sizes: tuple[int, int, int, int, int],
        *,
        bias: bool,
        dtype: np.dtype[Any],
        rng: np.random.Generator,
    ) -> Projections:
        """Draw the matrix uniform within sqrt(6 / (rows + columns)) of 0; the bias is 0."""
        M, H, G, D, E = sizes
        columns = H * D + G * D + G * E
        bound = math.sqrt(6 / (M + columns))
        weight = rng.uniform(-bound, bound, (M, columns)).astype(dtype)
        return cls(*sizes, weight, np.zeros(columns, dtype) if bias else None)

    @property
    def blocks(self) -> dict[str, tuple[int, int, int]]:
        """Where each of query, key and value stands: first column, heads, width."""
        H, G, D, E = self.num_heads, self.num_kv_heads, self.head_width, self.value_width
        return {"query": (0, H, D), "key": (H * D, G, D), "value": (H * D + G * D, G, E)}

    def views(self) -> dict[str, Array]:
        """Return all by name as read-only views: (heads, M, width) and (heads, width)."""
        views = {f"{block}_weight": _per_head(self.weight, at) for block, at in self.blocks.items()}
        if self.bias is not None:
            for block, at in self.blocks.items():
                views[f"{block}_bias"] = _per_head(self.bias, at)
        for view in views.values():
            view.flags.writeable = False
        return views

    def with_values(self, values: Mapping[str, Array]) -> Projections:
        """Return these projections with some parameters replaced, which fit already."""
        weight = self.weight.copy()
        bias = None if self.bias is None else self.bias.copy()
        for name, value in values.items():
            block, kind = name.split("_")
            target = weight if kind == "weight" else bias
            if target is not None:
                _per_head(target, self.blocks[block])[...] = value
        return replace(self, weight=weight, bias=bias)

    def project(
        self, x: Array, source: Array | None, backend: str | None
    ) -> tuple[Array, Array, Array]:
        """Return query (…, T, H, D), key (…, S, G, D) and value (…, S, G, E), without B as x is."""
        starts = [start for start, _, _ in self.blocks.values()]
        if source is None:
            parts = [self._columns(x, 0, self.weight.shape[1], backend)] * 3
            offsets = starts
        else:
            key_value = self._columns(source, starts[1], self.weight.shape[1], backend)
            parts = [self._columns(x, 0, starts[1], backend), key_value, key_value]
            offsets = [0, 0, starts[2] - starts[1]]
        query, key, value = (
            part[..., first : first + heads * width].reshape(*part.shape[:-1], heads, width)
            for part, first, (_, heads, width) in zip(
                parts, offsets, self.blocks.values(), strict=True
            )
        )
        return query, key, value

    def _columns(self, x: Array, first: int, last: int, backend: str | None) -> Array:
        """Return ``x @ weight + bias`` for some columns; 16 bits in float32, rounded once."""
        real = computation_dtype(self.weight.dtype)
        rows = x.astype(real, copy=False).reshape(math.prod(x.shape[:-1]), self.model_width)
        projected = np.empty((len(rows), last - first), real)
        bias = None if self.bias is None else self.bias[first:last]
        # a device's backend has no kernel for it: what a layer is given lies on the host
        kernels = select("reference" if backend == "reference" else "cpu")
        kernels.project(rows, self.weight[:, first:last], bias, projected)
        result: Array = projected.astype(self.weight.dtype, copy=False)
        return result.reshape(*x.shape[:-1], last - first)


def _per_head(array: Array, at: tuple[int, int, int]) -> Array:
    """View columns of (M, columns) as (heads, M, width), or of (columns,) as (heads, width)."""
    first, heads, width = at
    columns = array[..., first : first + heads * width]
    split = columns.reshape(*columns.shape[:-1], heads, width)
    return split.swapaxes(0, 1) if split.ndim == 3 else split


def as_learned(
    values: Mapping[str, Any], known: Mapping[str, Array], dtype: np.dtype[Any]
) -> dict[str, Array]:
    """Return the values given for known parameters in the layer's dtype, or raise by name."""
    require_mapping(values)
    learned = {}
    for name, value in values.items():
        if name not in known:
            raise ParameterError(
                f"parameters of this layer must be: {', '.join(known)}, got {name!r}"
            )
        array = as_float_array(value, name)
        if array.shape != known[name].shape:
            raise ShapeError(
                f"{name} must have shape {known[name].shape} in this layer, got shape {array.shape}"
            )
        learned[name] = array.astype(dtype)
    return learned


def as_input(value: object, name: str, model_width: int, dtype: np.dtype[Any]) -> Array:
    """Check the layer's input: (B, T, M) or (T, M), in the layer's dtype."""
    array = as_float_array(value, name)
    if array.ndim not in (2, 3) or array.shape[-1] != model_width:
        raise ShapeError(
            f"{name} must be (B, T, M) or (T, M) with M={model_width}, got shape {array.shape}"
        )
    if array.dtype != dtype:
        raise DTypeError(
            f"{name} must have the layer's dtype, {dtype.name}, got {array.dtype.name}; "
            f"pass {name}.astype(layer.dtype)"
        )
    return array


def as_source(value: object, x: Array, dtype: np.dtype[Any]) -> Array:
    """Check the second input of cross-attention: (B, S, M), or (S, M) as x has no B."""
    M = x.shape[-1]
    array = as_float_array(value, "source")
    letters = f"(B, S, M) with B={x.shape[0]} and M={M}" if x.ndim == 3 else f"(S, M) with M={M}"
    if array.ndim != x.ndim or array.shape[-1] != M or array.shape[:-2] != x.shape[:-2]:
        raise ShapeError(f"source must be {letters} as x is, got shape {array.shape}")
    return as_input(array, "source", M, dtype)
