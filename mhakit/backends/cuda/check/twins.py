"""Run a tile kernel's own source with NumPy, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cuda.tiles.call import View, blocks_of, fields_of, variant_of
from mhakit.backends.cuda.tiles.fields import FLOATS, INTEGERS
from mhakit.backends.cuda.tiles.kernels import AnyVariant, kernel_of
from mhakit.backends.cuda.tiles.memory import GlobalMemory
from mhakit.backends.cuda.tiles.segments import Decoding, launches_of, parts_shape
from mhakit.backends.cuda.tiles.twin import Twin
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.problem import Problem

__all__ = ["run_twin"]

Array = NDArray[Any]


def run_twin(
    problem: Problem,
    variant: Variant | None = None,
    *,
    machine: type[Twin] = Twin,
    skew: int = 0,
) -> tuple[Array, Array]:
    """Return the output, (B, H, T, E), and lse, (B, H, T), that a variant gives.

    One that decodes is followed by the kernel that merges. Raises
    `mhakit.backends.cuda.tiles.memory.Fault` where it did what no kernel may do. ``skew`` bytes
    spoil the alignment of the query.
    """
    assert problem.value is not None
    variant = variant_of(problem) if variant is None else variant
    memory = GlobalMemory()

    def at(array: Array | None, **how: Any) -> View | None:
        if array is None:
            return None
        address = memory.add(array, **how)
        return View(address, array.shape, array.strides, array.dtype)

    B, H, T, _ = problem.query.shape
    dtype = problem.query.dtype
    out = np.full((B, H, T, problem.value.shape[3]), np.nan, dtype)
    lse = np.full((B, H, T), np.nan, np.float32)
    sinks = None if problem.sinks is None else np.ascontiguousarray(problem.sinks, np.float32)
    bias = None if problem.bias is None else problem.bias.astype(np.float32, copy=False)
    there: dict[str, Any] = {
        "query": at(problem.query, skew=skew), "key": at(problem.key), "value": at(problem.value),
        "mask": at(problem.mask), "bias": at(bias), "sinks": at(sinks),
        "query_offset": at(problem.query_offset), "key_lengths": at(problem.key_lengths),
    }  # fmt: skip
    on_device = problem._replace(**there)
    launches: list[tuple[AnyVariant, int]] = [(variant, blocks_of(on_device, variant))]
    parts = None
    if isinstance(variant, Decoding):
        launches = [*launches_of(on_device, variant)]
        shape = parts_shape(on_device)
        parts = None if shape is None else np.full(shape, np.nan, np.float32)
    numbers = fields_of(
        on_device, variant, at(out, output=True), at(lse, output=True), at(parts, scratch=True)
    )
    fields: dict[str, Any] = {name: np.int64(numbers[name]) for name in INTEGERS}
    fields |= {name: np.float32(numbers[name]) for name in FLOATS}
    modify = problem.score_mod
    if modify is not None:
        modify = _with_args(modify, problem.score_args)
    for launched, blocks in launches:
        for block in range(blocks):
            twin = machine(
                launched.dtype, launched.threads, block, launched.shared_bytes, memory, fields,
                modify,
            )  # fmt: skip
            with np.errstate(invalid="ignore", divide="ignore", under="ignore", over="raise"):
                kernel_of(launched)(twin, launched)
            twin.shared.finish()
    memory.check_written()
    return out, lse


def _with_args(score_mod: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    return lambda score, b, h, t, s: score_mod(score, b, h, t, s, *args)
