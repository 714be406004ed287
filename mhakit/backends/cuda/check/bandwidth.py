"""Time on a GPU what is bound by memory: decoding and combinations, beside a plain copy.

Nothing here runs without one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mhakit.backends.cuda.check.device import Held, milliseconds
from mhakit.backends.cuda.check.trials import dtype_of
from mhakit.backends.cuda.combination import combine_heads
from mhakit.backends.cuda.tiles import decode
from mhakit.backends.cuda.tiles.call import View
from mhakit.backends.cuda.tiles.segments import parts_shape
from mhakit.device import DeviceArray
from mhakit.plugin_api import CombinationPlan
from mhakit.problem import UNBOUNDED, Problem

__all__ = ["time_bandwidth"]

_COPIED = 2**30
"""Bytes of the copy: many times what any cache holds."""
_DECODED = (
    # B, H, G, S, D with T = 1: 200 to 540 MB of keys and values, of float32 twice as much
    (1, 32, 8, 65536, 128), (32, 32, 8, 4096, 128), (8, 16, 16, 8192, 64), (64, 64, 4, 2048, 128),
)  # fmt: skip
_COMBINED = (8, 16, 4096, 128)
"""B, H, T, E"""


def time_bandwidth(dtype: str, repeat: int = 30) -> list[dict[str, Any]]:
    """Return a row for each workload: milliseconds, GB/s, and the fraction of a copy's GB/s."""
    from numba import cuda

    source, target = (cuda.device_array(_COPIED, np.uint8) for _ in range(2))

    def copy() -> None:
        target.copy_to_device(source, stream=cuda.default_stream())

    copied = 2 * _COPIED / milliseconds(copy, repeat) / 1e6
    rows: list[dict[str, Any]] = [{"what": "copy", "copy_gbs": copied}]

    def rates(who: str, run: Callable[[], None], moved: int) -> dict[str, float]:
        took = milliseconds(run, repeat, before=copy)
        speed = moved / took / 1e6
        return {f"{who}_ms": took, f"{who}_gbs": speed, f"{who}_of_copy": speed / copied}

    for B, H, G, S, D in _DECODED:
        moved = 2 * B * G * S * D * dtype_of(dtype).itemsize
        row: dict[str, Any] = {"what": f"decoding {B},{H}/{G},1,{S},{D}", "dtype": dtype}
        row |= rates("mhakit", _decoding(dtype, B, H, G, S, D), moved)
        run = _torch_decoding(dtype, B, H, G, S, D)
        rows.append(row if run is None else row | rates("torch", run, moved))
    for name in ("sum", "concatenation", "gated sum", "gated concatenation"):
        run, moved = _combination(dtype, name)
        row = {"what": f"combination by {name}", "dtype": dtype}
        rows.append(row | rates("mhakit", run, moved))
    return rows


def _random(held: Held, shape: tuple[int, ...], dtype: str) -> View:
    """Put random numbers on the device, the same for each first index: it is their place alone."""
    one = np.random.default_rng().standard_normal(shape[1:], np.float32).astype(dtype_of(dtype))
    view = held.put(np.broadcast_to(one, shape))
    assert view is not None
    return view


def _decoding(dtype: str, B: int, H: int, G: int, S: int, D: int) -> Callable[[], None]:
    from numba import cuda

    held = Held()
    query, out = (_random(held, (B, H, 1, D), dtype) for _ in range(2))
    key, value = (_random(held, (B, G, S, D), dtype) for _ in range(2))
    counts = [held.put(np.full(B, number, np.int64)) for number in (0, S)]
    fields: dict[str, Any] = {
        "query": query, "key": key, "value": value, "mask": None, "bias": None,
        "left": UNBOUNDED, "right": UNBOUNDED, "query_offset": counts[0],
        "key_lengths": counts[1], "scale": D**-0.5, "softcap": 0.0, "sinks": None,
        "score_mod": None, "score_args": (), "real": np.dtype(np.float32),
    }  # fmt: skip
    problem, stream = Problem(**fields), cuda.default_stream()
    shape = parts_shape(problem)
    parts = None if shape is None else held.put(np.zeros(shape, np.float32))

    def run() -> None:
        assert held  # what the problem's addresses point to
        decode(problem, out, None, parts, stream=stream)

    return run


def _torch_decoding(
    dtype: str, B: int, H: int, G: int, S: int, D: int
) -> Callable[[], None] | None:
    """Return torch's own choice of a kernel for the same, on its default stream."""
    try:
        import torch
    except ImportError:
        return None
    shapes = ((B, H, 1, D), (B, G, S, D), (B, G, S, D))
    made = [torch.randn(shape, device="cuda", dtype=getattr(torch, dtype)) for shape in shapes]
    attend = torch.nn.functional.scaled_dot_product_attention
    return partial(attend, *made, enable_gqa=H != G)


def _combination(dtype: str, name: str) -> tuple[Callable[[], None], int]:
    """Return one that reads every head once and projects nothing, and the bytes it moves."""
    B, H, T, E = _COMBINED
    held = Held()
    heads = _as_array(_random(held, (B, H, T, E), dtype))
    groups = H if "concatenation" in name else 1
    out = _as_array(_random(held, (B, T, groups * E), dtype))
    gate = _as_array(_random(held, (B, H, T, 1), "float32")) if "gated" in name else None
    factors: Any = gate
    plan = CombinationPlan(groups=groups, head_weights=factors)
    moved = sum(array.size * array.itemsize for array in (heads, out, gate) if array is not None)

    def run() -> None:
        assert held
        combine_heads(heads, plan, out)

    return run, moved


def _as_array(view: View) -> DeviceArray:
    return DeviceArray(*view, None)
