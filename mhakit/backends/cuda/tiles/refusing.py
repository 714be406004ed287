"""Which problems the tile kernels take."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from mhakit.backends.cuda.tiles.call import View, blocks_of, variant_of, view_of
from mhakit.backends.cuda.tiles.segments import ROWS, Decoding, decoding_of, launches_of, rows_of
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.problem import Problem

__all__ = ["LIMIT", "WIDTHS", "decoding_refusal", "refusal"]

WIDTHS = (32, 64, 80, 96, 128, 256)
LIMIT = 2**28
"""Targets and sources: positions are counted in 32 bits."""
_FLOAT32_WIDTHS = WIDTHS[:-1]
_SHARED = {
    (7, 0): 96,
    (7, 2): 96,
    (7, 5): 64,
    (8, 0): 163,
    (8, 7): 163,
    (9, 0): 227,
    (10, 0): 227,
    (10, 3): 227,
    (11, 0): 227,
}
"""KiB of shared memory that a block may ask for (CUDA's programming guide), else the least."""
_LEAST_SHARED = 99


def refusal(
    problem: Problem,
    capability: tuple[int, int],
    out: Any | None = None,
    *,
    variant_of: Callable[[Problem, tuple[int, int]], Variant] = variant_of,
) -> str | None:
    """Return why the tile kernels do not take a problem, or None where they do.

    Parameters
    ----------
    problem : Problem
        Its arrays lie on a device, ``query_offset`` and ``key_lengths`` too; nothing of them but
        address, shape, strides and dtype is read.
    capability : (int, int)
        The device's compute capability.
    out : array, optional
        Where the output goes, if that is known.
    variant_of : function, optional
        Which of the kernels would take the problem.

    Examples
    --------
    >>> import numpy as np
    >>> from mhakit.api.arguments import as_problem
    >>> x = np.ones((1, 1, 4, 64), np.float16)
    >>> problem, _ = as_problem(x, x, x)
    >>> refusal(problem, (9, 0))
    >>> refusal(problem, (7, 5))
    'the device has compute capability 7.5, tile kernels of float16 need 8.0'
    """
    assert problem.value is not None
    query, key, value = (view_of(x) for x in (problem.query, problem.key, problem.value))
    least = (7, 0) if query.dtype.name == "float32" else (8, 0)
    if capability < least:
        return (
            f"the device has compute capability {capability[0]}.{capability[1]}, "
            f"tile kernels of {query.dtype.name} need {least[0]}.{least[1]}"
        )
    if query.dtype.name not in ("bfloat16", "float16", "float32"):
        return f"the dtype is {query.dtype.name}, tile kernels take bfloat16, float16 and float32"
    variant = variant_of(problem, capability)
    decodes = isinstance(variant, Decoding)
    widths = _FLOAT32_WIDTHS if query.dtype.name == "float32" and not decodes else WIDTHS
    for letter, width in (("D", query.shape[3]), ("E", value.shape[3])):
        if width not in widths:
            taken = ", ".join(map(str, widths))
            return f"{letter} is {width}, tile kernels of {query.dtype.name} take {taken}"
    if problem.mask is not None and 256 in (variant.D, variant.E) and not decodes:
        return "a mask at a width of 256 does not fit the registers of a tile kernel"
    if not (problem.scale > 0 and isfinite(problem.scale)):
        return f"scale is {problem.scale}, tile kernels take a finite one above 0"
    for letter, size in (("T", query.shape[2]), ("S", key.shape[2])):
        if size > LIMIT:
            return f"{letter} is {size}, tile kernels take {LIMIT}"
    launches = [blocks_of(problem, variant)]
    if isinstance(variant, Decoding):
        launches = [blocks for _, blocks in launches_of(problem, variant)]
    if max(launches, default=0) >= 2**31:
        return f"B * H * T is {query.shape[0] * query.shape[1] * query.shape[2]}, too many blocks"
    room = _SHARED.get(capability, _LEAST_SHARED)
    if variant.shared_bytes > room * 1024:
        return (
            f"D = {variant.D} and E = {variant.E} take {variant.shared_bytes} bytes of shared "
            f"memory, a block of compute capability {capability[0]}.{capability[1]} has "
            f"{room * 1024}"
        )
    for name, array in (("query", query), ("key", key), ("value", value), ("out", out)):
        reason = None if array is None else _misplaced(name, view_of(array))
        if reason:
            return reason
    if problem.bias is not None:
        bias = view_of(problem.bias)
        if bias.dtype.name != "float32":
            return f"bias is {bias.dtype.name}, tile kernels read float32"
        if any(number % 4 for number in (bias.address, *bias.strides)):
            return "bias does not lie at multiples of 4 bytes"
    if problem.sinks is not None:
        sinks = view_of(problem.sinks)
        if sinks.dtype.name != "float32":
            return f"sinks is {sinks.dtype.name}, tile kernels read float32"
        if sinks.shape[0] > 1 and sinks.strides[0] != 4:
            return f"neighbours of sinks are {sinks.strides[0]} bytes apart"
    return None


def decoding_refusal(
    problem: Problem, capability: tuple[int, int], out: Any | None = None
) -> str | None:
    """Return why the kernels of few targets do not take a problem, or None where they do.

    Examples
    --------
    >>> import numpy as np
    >>> from mhakit.api.arguments import as_problem
    >>> query, key = np.ones((1, 4, 5, 64), np.float16), np.ones((1, 1, 9, 64), np.float16)
    >>> problem, _ = as_problem(query, key, key)
    >>> decoding_refusal(problem, (9, 0))
    'T * H / G is 20, decoding takes 16 at most'
    """
    rows = rows_of(problem)
    if rows > ROWS:
        return f"T * H / G is {rows}, decoding takes {ROWS} at most"
    return refusal(problem, capability, out, variant_of=decoding_of)


def _misplaced(name: str, view: View) -> str | None:
    """Return why an array cannot be read 16 bytes at a time."""
    if view.strides[3] != view.dtype.itemsize:
        return f"neighbours along the last axis of {name} are {view.strides[3]} bytes apart"
    steps = [step for step, size in zip(view.strides[:3], view.shape, strict=False) if size > 1]
    if any(number % 16 for number in (view.address, *steps)):
        return f"rows of {name} do not begin at multiples of 16 bytes"
    return None
