"""Run every variant on a GPU: right first, then timed. Nothing here runs without one."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mhakit.backends.cuda.check.trials import bits_of, trial_of
from mhakit.backends.cuda.tiles import attend, decode
from mhakit.backends.cuda.tiles.call import ASKED, View
from mhakit.backends.cuda.tiles.segments import Decoding, FmaDecoding, parts_shape
from mhakit.backends.cuda.tiles.variant import Fma, Variant
from mhakit.errors import BackendUnavailable
from mhakit.problem import UNBOUNDED, Problem
from mhakit.testing import assert_within

__all__ = ["Held", "milliseconds", "require_device", "time_all", "verify"]

_LAUNCHES: dict[type, Callable[..., None]] = {
    Variant: attend, Fma: attend, Decoding: decode, FmaDecoding: decode
}  # fmt: skip

WAY_OUT = "run with --compile or --twins, which need none"


def require_device() -> str:
    """Return the name of the GPU in hand, or raise BackendUnavailable."""
    try:
        from numba import cuda
        from numba.cuda.cudadrv.error import CudaSupportError
    except ImportError as error:
        raise BackendUnavailable(
            f"the check must have a GPU and numba-cuda, got {error}; "
            f"pip install 'mhakit[cuda]', or {WAY_OUT}"
        ) from error
    try:
        device = cuda.get_current_device()
    except (CudaSupportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BackendUnavailable(f"the check must have a GPU, got {reason}; {WAY_OUT}") from error
    name = device.name
    return name.decode() if isinstance(name, bytes) else str(name)


class Held:
    """Arrays on the device, as bytes, and views of them."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def put(self, array: Any) -> View | None:
        """Copy an array to the device; strides of 0 are copied out."""
        from numba import cuda

        if array is None:
            return None
        whole = np.ascontiguousarray(array)
        there = cuda.to_device(whole.reshape(-1).view(np.uint8))
        self._kept.append(there)
        address = there.__cuda_array_interface__["data"][0]
        return View(address, whole.shape, whole.strides, whole.dtype)

    def get(self, which: int, like: Any) -> Any:
        """Copy the array put there as number ``which`` back."""
        return self._kept[which].copy_to_host().view(like.dtype).reshape(like.shape)


def _on_device(problem: Problem, held: Held) -> Problem:
    names = (
        "query", "key", "value", "mask", "bias", "sinks", "query_offset", "key_lengths"
    )  # fmt: skip
    there: Any = {name: held.put(getattr(problem, name)) for name in names}
    return problem._replace(**there)


def verify(variant: Variant, rng: np.random.Generator) -> None:
    """Raise AssertionError unless a variant keeps the budget and repeats its bits."""
    from numba import cuda

    trial = trial_of(variant, rng)
    B, H, T, _ = trial.problem.query.shape
    results = []
    for _ in range(2):
        held = Held()
        out = np.full((B, H, T, variant.E), np.nan, trial.problem.query.dtype)
        lse = np.full((B, H, T), np.nan, np.float32)
        places, launch = [held.put(out), held.put(lse)], _LAUNCHES[type(variant)]
        if isinstance(variant, Decoding):
            shape = parts_shape(trial.problem)
            places.append(None if shape is None else held.put(np.full(shape, np.nan, np.float32)))
        with _asking(variant.product):
            launch(_on_device(trial.problem, held), *places, stream=cuda.default_stream())
        cuda.synchronize()
        results.append((held.get(0, out), held.get(1, lse)))
    assert_within(results[0][0], trial.output, f"{variant.name}: output")
    assert_within(results[0][1], trial.lse, f"{variant.name}: lse")
    for first, second in zip(*results, strict=True):
        if not np.array_equal(bits_of(first), bits_of(second)):
            raise AssertionError(f"{variant.name}: two runs gave different bits")


@contextmanager
def _asking(product: str) -> Iterator[None]:
    """Ask for float32 without tensor cores where that is the product, else for nothing."""
    before = os.environ.pop(ASKED, None)
    if product == "fma":
        os.environ[ASKED] = product
    try:
        yield
    finally:
        os.environ.pop(ASKED, None)
        if before is not None:
            os.environ[ASKED] = before


def time_all(repeat: int = 30) -> list[dict[str, Any]]:
    """Return a row for each workload: milliseconds, TFLOP/s, and torch's beside them."""
    rows: list[dict[str, Any]] = []
    for dtype, product in (("bfloat16", "mma"), ("float32", "3xtf32"), ("float32", "fma")):
        with _asking(product):
            rows += _time(dtype, product, repeat)
    return rows


def _time(dtype: str, product: str, repeat: int) -> list[dict[str, Any]]:
    rows = []
    for D in (64, 128):
        for causal in (False, True):
            B, H, T = 4, 16, 4096
            work = 4 * B * H * T * T * D * (0.5 if causal else 1.0)
            run = _workload(dtype, B, H, T, D, causal)
            row: dict[str, Any] = {
                "dtype": dtype,
                "product": product,
                "D": D,
                "T": T,
                "B*H": B * H,
                "causal": causal,
            }
            row |= _rates("mhakit", milliseconds(run, repeat), work)
            rows.append(row | _torch(dtype, B, H, T, D, causal, repeat, work))
    return rows


def _rates(who: str, milliseconds: float, work: float) -> dict[str, float]:
    return {f"{who}_ms": milliseconds, f"{who}_tflops": work / milliseconds / 1e9}


def _workload(dtype: str, B: int, H: int, T: int, D: int, causal: bool) -> Callable[[], None]:
    from numba import cuda

    from mhakit.backends.cuda.check.trials import dtype_of

    rng, held = np.random.default_rng(), Held()
    kind = dtype_of(dtype)
    arrays = [
        held.put(rng.standard_normal((B, H, T, D), np.float32).astype(kind)) for _ in range(4)
    ]
    counts: Any = [held.put(np.full(B, number, np.int64)) for number in (0, T)]
    query, key, value, out = arrays
    fields: dict[str, Any] = {
        "query": query, "key": key, "value": value, "mask": None, "bias": None,
        "left": UNBOUNDED, "right": 0 if causal else UNBOUNDED, "query_offset": counts[0],
        "key_lengths": counts[1], "scale": D**-0.5, "softcap": 0.0, "sinks": None,
        "score_mod": None, "score_args": (), "real": np.dtype(np.float32),
    }  # fmt: skip
    problem, stream = Problem(**fields), cuda.default_stream()

    def run() -> None:
        assert held  # what the problem's addresses point to
        attend(problem, out, None, stream=stream)

    return run


def milliseconds(
    run: Callable[[], None], repeat: int, before: Callable[[], None] = lambda: None
) -> float:
    """Return the median by events, after a warm-up.

    ``before`` keeps the device at work while the host starts what is timed.
    """
    from numba import cuda

    for _ in range(3):
        run()
    times = []
    for _ in range(repeat):
        before()
        begin, end = cuda.event(), cuda.event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(cuda.event_elapsed_time(begin, end))
    return float(statistics.median(times))


def _torch(
    dtype: str, B: int, H: int, T: int, D: int, causal: bool, repeat: int, work: float
) -> dict[str, Any]:
    """Return torch's rates, one for each of its backends that takes the workload."""
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return {}
    made = [torch.randn(B, H, T, D, device="cuda", dtype=getattr(torch, dtype)) for _ in range(3)]
    found: dict[str, Any] = {}
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION"):
        backend = getattr(SDPBackend, name, None)
        if backend is None:
            continue
        times = []
        try:
            with sdpa_kernel(backend):
                for turn in range(repeat + 3):
                    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    begin.record()
                    torch.nn.functional.scaled_dot_product_attention(*made, is_causal=causal)
                    end.record()
                    end.synchronize()
                    if turn >= 3:
                        times.append(begin.elapsed_time(end))
        except RuntimeError:
            continue  # this backend does not take it, which the table shows by its absence
        found |= _rates(f"torch_{name.lower()}", statistics.median(times), work)
    return found
