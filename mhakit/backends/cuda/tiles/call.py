"""From a problem whose arrays lie on a device to the numbers of a launch."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from mhakit.backends.cuda.tiles.variant import Fma, Variant
from mhakit.errors import ParameterError
from mhakit.problem import Problem

__all__ = [
    "ASKED",
    "LOG2E",
    "View",
    "asks_for_fma",
    "blocks_of",
    "fields_of",
    "product_for",
    "tiled",
    "variant_of",
    "view_of",
]

ASKED = "MHAKIT_CUDA_FLOAT32"
"""The variable of the environment that asks for float32 without tensor cores."""

LOG2E = 1.4426950408889634074
_SECTION = 16
"""Heads whose keys and values are to share the cache."""


class View(NamedTuple):
    """An array by its address; strides in bytes."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


def view_of(array: Any) -> View:
    """Return the view of a device array, or of a NumPy array for the twin."""
    if isinstance(array, View):
        return array
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        interface = array.__array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(array.dtype)
    strides = interface.get("strides")
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) * dtype.itemsize for i in range(len(shape)))
    return View(int(interface["data"][0]), shape, tuple(strides), dtype)


def asks_for_fma() -> bool:
    """Return whether `ASKED` asks for float32 without tensor cores; it is read at every call."""
    asked = os.environ.get(ASKED, "")
    if asked not in ("", "fma"):
        raise ParameterError(
            f"{ASKED} must be fma or not set, got {asked!r}; unset it, and float32 is multiplied "
            "by tensor cores where there are any"
        )
    return asked == "fma"


def product_for(dtype: str, capability: tuple[int, int]) -> str:
    """Return how a device of a compute capability multiplies numbers of a dtype."""
    if dtype != "float32":
        return "mma"
    return "fma" if asks_for_fma() or capability < (8, 0) else "3xtf32"


def variant_of(problem: Problem, capability: tuple[int, int] = (9, 0)) -> Variant:
    """Return the kernel that takes a problem on a device of a compute capability."""
    assert problem.value is not None
    query, value = view_of(problem.query), view_of(problem.value)
    product = product_for(query.dtype.name, capability)
    variant = (Fma if product == "fma" else Variant)(
        query.dtype.name,
        query.shape[3],
        value.shape[3],
        rows=64,
        warps=4,
        softcap=problem.softcap != 0,
        bias=problem.bias is not None,
        mask=problem.mask is not None,
        score_mod=problem.score_mod is not None,
        product=product,
    )
    return tiled(variant, query.shape[2] if capability >= (8, 0) else 0)


def tiled(variant: Variant, T: int) -> Variant:
    """Return the variant with as many targets to a block as T fills and registers hold.

    The compile check holds it to having no spills. Chips before 8.0 have no room for more.
    """
    widest = {"mma": 96 if variant.softcap else 128, "fma": 0 if variant.softcap else 80}
    fits = max(variant.D, variant.E) <= widest.get(variant.product, 0)
    return variant._replace(rows=128 if fits and T > 64 and not variant.hides_anywhere else 64)


def blocks_of(problem: Problem, variant: Variant) -> int:
    """Return how many blocks a launch has."""
    B, H, T, _ = view_of(problem.query).shape
    return B * H * -(-T // variant.rows)


def fields_of(
    problem: Problem, variant: Variant, out: Any, lse: Any | None, parts: Any | None = None
) -> dict[str, Any]:
    """Return what `mhakit.backends.cuda.tiles.fields` names.

    All arrays of the problem lie on the device, ``query_offset`` and ``key_lengths`` too, and
    what `mhakit.backends.cuda.tiles.decoding` merges in ``parts``.
    """
    views = {
        "query": view_of(problem.query), "key": view_of(problem.key),
        "value": view_of(problem.value), "out": view_of(out),
    }  # fmt: skip
    fields: dict[str, Any] = {}
    for name, axes in (("query", "bht"), ("key", "bhs"), ("value", "bhs"), ("out", "bht")):
        fields[name] = views[name].address
        for axis, stride in zip(axes, views[name].strides, strict=False):
            fields[f"{name}_{axis}"] = stride
    for name, array in (("bias", problem.bias), ("mask", problem.mask)):
        view = View(0, (), (0, 0, 0, 0), np.dtype(bool)) if array is None else view_of(array)
        fields[name] = view.address
        for axis, stride in zip("bhts", view.strides, strict=True):
            fields[f"{name}_{axis}"] = stride
    for name, array in (
        ("lse", lse), ("sinks", problem.sinks), ("offsets", problem.query_offset),
        ("lengths", problem.key_lengths), ("parts", parts),
    ):  # fmt: skip
        fields[name] = 0 if array is None else view_of(array).address
    B, H, T, _ = views["query"].shape
    _, G, S, _ = views["key"].shape
    scale = problem.scale * variant.worth**2
    unit = 1.0 if variant.changes else scale
    return fields | {
        "T": T, "S": S, "D": variant.D, "H": H, "ratio": H // G, "pairs": B * H,
        "tiles": -(-T // variant.rows), "section": min(_SECTION, B * H),
        "left": problem.left, "right": problem.right,
        "scale": scale, "softcap": problem.softcap, "unit": unit, "factor": unit * LOG2E,
    }  # fmt: skip
