"""Weighted sums of values: one work item is one tile of targets of one head, all its sources."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from mhakit.backends.cpu.call import SOURCES, lanes_for
from mhakit.backends.cpu.flags import part
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, take
from mhakit.backends.cpu.record import HEAD, records, where
from mhakit.backends.cpu.rows import load_rows, store_rows, widen_rows
from mhakit.backends.cpu.simd import accumulate_visible
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import FLOAT16, kind_of
from mhakit.backends.cpu.tiles import aligned, fill
from mhakit.problem import computation_dtype

__all__ = ["weigh_values"]

_INTEGERS = (
    *HEAD, "B", "H", "G", "T", "S", "E", "lanes", "kind",
    "weights", "weights_b", "weights_h", "weights_t", "weights_s",
    "value", "value_b", "value_h", "value_s", "value_e",
    "out", "out_b", "out_h", "out_t", "out_e",
)  # fmt: skip

SUMS = records(_INTEGERS)
"""Weights, values and output as addresses and byte strides; letters as in `mhakit.problem`."""


def _enter(calls):
    """Be one worker."""
    records = carray(calls, 1)
    _work(records, records[0].one)


_run = Worker(_enter, SUMS)


def weigh_values(weights: NDArray[Any], value: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the weighted sum of values, (B, H, T, E); a weight of 0 leaves its value out."""
    B, H, T, S = weights.shape
    G, E = value.shape[1], value.shape[3]
    real = computation_dtype(out.dtype)
    lanes = lanes_for(T, real)
    numbers = (B, H, G, T, S, E, lanes, kind_of(out.dtype))
    places = (*where(weights), *where(value), *where(out))
    calls = np.array([(0, 0, 0, 0, *numbers, *places, 1)], SUMS[real])
    run_in_slices(_run.of(real), calls, B * H * -(-T // lanes), 0.02 * E * weights.size)


@part
def _work(calls, real):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes, E = call.lanes, call.E
    laid, sums = aligned(real, SOURCES, lanes), aligned(real, E, lanes)
    ones = aligned(real, 1, lanes)
    fill(ones, type(real)(1))
    staged = aligned(real, SOURCES, E if call.kind >= FLOAT16 else 1)
    at = np.empty(lanes, np.int64)
    tiles = -(-call.T // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        _sum_tile(
            call, real, pair // call.H, pair % call.H, item % tiles * lanes, laid, sums, ones,
            staged, at,
        )  # fmt: skip
    end(calls)


@part
def _sum_tile(call, real, b, h, first_row, laid, sums, ones, staged, at):
    """Write the sums of targets [first_row, first_row + lanes) of one head."""
    cast = type(real)
    lanes, kind, E = call.lanes, call.kind, call.E
    value = call.value + b * call.value_b + h // (call.H // call.G) * call.value_h
    given = call.weights + b * call.weights_b + h * call.weights_h
    written = call.out + b * call.out_b + h * call.out_h
    step = lanes * laid.itemsize
    fill(sums, cast(0))
    for source in range(0, call.S, SOURCES):
        rows = min(source + SOURCES, call.S) - source
        for lane in range(lanes):
            t = min(first_row + lane, call.T - 1)  # spare lanes repeat the last target
            at[lane] = given + t * call.weights_t + source * call.weights_s
        load_rows(real, kind, at, call.weights_s, rows, laid)
        for i in range(rows):
            for lane in range(lanes):
                weight = laid[i, lane]
                laid[i, lane] = cast(-0.0) if weight == cast(0) else weight
        row, row_stride, across = value + source * call.value_s, call.value_s, call.value_e
        if kind >= FLOAT16:
            widen_rows(real, kind, row, row_stride, across, rows, E, staged)
            row, row_stride, across = address(staged), staged.strides[0], np.int64(staged.itemsize)
        accumulate_visible(
            real, row, across, row_stride, address(laid), address(sums), step, step, E, rows,
            address(ones),
        )  # fmt: skip
    for lane in range(lanes):
        at[lane] = written + min(first_row + lane, call.T - 1) * call.out_t
    store_rows(real, kind, at, call.out_e, E, sums)
