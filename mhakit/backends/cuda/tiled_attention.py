"""Attention by the tile kernels: a problem's arrays brought to where and how they read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mhakit.backends.cuda import attention, memory, presence, tiles
from mhakit.backends.cuda.calling import Call
from mhakit.backends.cuda.launch import naming
from mhakit.backends.cuda.memory import core_of
from mhakit.backends.cuda.score_mod import refuse_other_than_a_number
from mhakit.backends.cuda.tiles.call import (
    ASKED,
    View,
    asks_for_fma,
    product_for,
    variant_of,
    view_of,
)
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.device import DeviceArray
from mhakit.problem import Problem

__all__ = [
    "attend",
    "capability_of",
    "describe",
    "means_of",
    "reason",
    "refusal",
    "run",
    "way_to_multiply",
]

_GIVEN = ("query", "key", "value", "mask", "bias", "sinks", "query_offset", "key_lengths")
_READ = {"bias": np.float32, "sinks": np.float32, "query_offset": np.int64, "key_lengths": np.int64}
"""What kernels read these arrays of the host as; the others as they are."""


def attend(problem: Problem, out: Any, *, wants_lse: bool = True) -> Any:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), if wanted."""
    return run(problem, out, tiles.attend, wants_lse=wants_lse)


def run(
    problem: Problem,
    out: Any,
    launch: Callable[..., None],
    scratch: tuple[int, ...] | None = None,
    *,
    wants_lse: bool,
) -> Any:
    """Launch tile kernels on a problem; where they need float32 ``scratch``, they get it, too."""
    refuse_other_than_a_number(problem)
    B, H, T, _ = problem.query.shape
    with Call(problem.query, "attention") as call:
        lse = call.empty((B, H, T), problem.real, "lse") if wants_lse else None
        kept: list[Any] = []  # a view keeps no memory

        def seen(there: Any, dtype: np.dtype[Any]) -> View:
            kept.append(there)
            return view_of(there)._replace(dtype=dtype)  # bfloat16 is uint16 to Numba

        views: dict[str, Any] = {}
        for name in _GIVEN:
            array = _as_read(problem, name)
            if array is not None:
                views[name] = seen(call.given(array, name), array.dtype)
        on_device = problem._replace(**views, score_args=call.carried(problem.score_args))
        places: list[View | None] = [seen(call.written(out, "output"), out.dtype)]
        places.append(seen(call.written(lse, "lse"), problem.real) if wants_lse else None)
        if scratch is not None:
            real = np.dtype(np.float32)
            places.append(seen(memory.make(scratch, real, "scratch", call.stream), real))
        with naming("attention", problem.score_mod):
            launch(on_device, *places, stream=call.stream)
    return lse


def refusal(
    problem: Problem,
    capability: tuple[int, int],
    out: Any = None,
    *,
    judge: Callable[..., str | None] = tiles.refusal,
) -> str | None:
    """Return why tile kernels do not take a problem, as it will lie on the device."""
    views = {name: _as_placed(getattr(problem, name), _READ.get(name)) for name in _GIVEN}
    there: Any = problem._replace(**views)
    return judge(there, capability, _as_placed(out))


def reason(problem: Problem) -> str:
    """Return why it is the tile kernels that take a problem, and how they multiply."""
    how = way_to_multiply(problem)
    return f"tile kernels take this dtype{how}, these widths and these keywords"


def way_to_multiply(problem: Problem) -> str:
    """Return how tile kernels multiply float32, to be told after a comma; nothing of 16 bits."""
    capability = capability_of(problem)
    how = {
        "mma": "",
        "3xtf32": ", which tensor cores multiply as three products of TF32",
        "fma": f", without tensor cores: compute capability {capability[0]}.{capability[1]} has "
        "no TF32",
    }[product_for(problem.query.dtype.name, capability)]
    return f", without tensor cores, as {ASKED} asks" if how and asks_for_fma() else how


def means_of(variant: Variant) -> str:
    """Return the instruction that a variant multiplies by."""
    return "fma" if variant.product == "fma" else "mma.sync"


def capability_of(problem: Problem) -> tuple[int, int]:
    """Return the compute capability of the device that is to take a problem."""
    found = presence.capability_of(problem.query)
    assert found is not None, "a simulator is no device of tile kernels"
    return found


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, but for the reason."""
    variant = variant_of(problem, capability_of(problem))
    tile = variant.rows, variant.sources
    return {
        "kernel": f"cuda.attention, tiles by {means_of(variant)}, {variant.name}",
        "order": f"tiles of {variant.sources} sources, in order",
        "threads": variant.threads,
        "lanes": 1,
        "tile": tile,
        **attention.count_tiles(problem, tile, hides_anywhere=variant.hides_anywhere),
        "scratch_bytes": 16 * problem.query.shape[0],
    }


def _as_read(problem: Problem, name: str) -> Any:
    """Return an array of the problem as it is to be brought to the device."""
    array = getattr(problem, name)
    if array is None or isinstance(array, DeviceArray) or name not in _READ:
        return array  # what lies on a device is taken as it is, or refused
    return np.broadcast_to(core_of(array).astype(_READ[name], copy=False), array.shape)


def _as_placed(array: Any, dtype: Any = None) -> Any:
    """Return an array of the host as the view that its copy will be; nothing is copied yet."""
    if array is None or isinstance(array, DeviceArray):
        return array
    copy = np.empty(core_of(array).shape, dtype or array.dtype)
    there = np.broadcast_to(copy, array.shape)
    return View(0, there.shape, there.strides, there.dtype)
