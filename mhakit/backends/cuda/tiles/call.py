"""From a problem whose arrays lie on a device to the numbers of a launch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.problem import Problem

__all__ = ["LOG2E", "View", "blocks_of", "fields_of", "tiled", "variant_of", "view_of"]

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


def variant_of(problem: Problem) -> Variant:
    """Return the kernel that takes a problem."""
    assert problem.value is not None
    query, value = view_of(problem.query), view_of(problem.value)
    return tiled(
        Variant(
            query.dtype.name,
            query.shape[3],
            value.shape[3],
            rows=64,
            warps=4,
            softcap=problem.softcap != 0,
            bias=problem.bias is not None,
            mask=problem.mask is not None,
            score_mod=problem.score_mod is not None,
            product="3xtf32" if query.dtype.name == "float32" else "mma",
        ),
        query.shape[2],
    )


def tiled(variant: Variant, T: int) -> Variant:
    """Return the variant with as many targets to a block as T fills and registers hold.

    The compile check holds it to having no spills.
    """
    if variant.dtype == "float32":
        return variant  # a big and a small part of each number leave no room for more
    widest = max(variant.D, variant.E)
    fits = not variant.hides_anywhere and widest <= (96 if variant.softcap else 128)
    return variant._replace(rows=128 if fits and T > 64 else 64)


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
