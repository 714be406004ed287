"""Weighted sums of values: one work item is one tile of targets of one head, all its sources."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.call import SOURCES, lanes_for
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import lesser
from mhakit.backends.cpu.launch import Worker
from mhakit.backends.cpu.memory import address, end, take
from mhakit.backends.cpu.record import HEAD, pack, records, where
from mhakit.backends.cpu.rows import load_rows, store_rows, widened
from mhakit.backends.cpu.scratch import release, reserve, state_of, state_size
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import FLOAT16, kind_of
from mhakit.backends.cpu.tiles import fill
from mhakit.backends.cpu.values import add_values, leaks
from mhakit.problem import computation_dtype

__all__ = ["weigh_values"]

_INTEGERS = (
    *HEAD, "B", "H", "G", "T", "S", "E", "lanes", "kind", "item",
    "weights", "weights_b", "weights_h", "weights_t", "weights_s",
    "value", "value_b", "value_h", "value_s", "value_e",
    "out", "out_b", "out_h", "out_t", "out_e",
)  # fmt: skip

SUMS = records(_INTEGERS)
"""Weights, values and output as addresses and byte strides; letters as in `mhakit.problem`."""


def _enter(calls):
    """Be one worker."""
    records = records_at(calls, 1)
    _work(records, records[0].one)


_run = Worker(_enter, SUMS)


def weigh_values(weights: NDArray[Any], value: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the weighted sum of values, (B, H, T, E); a weight of 0 leaves its value out."""
    B, H, T, S = weights.shape
    G, E = value.shape[1], value.shape[3]
    real = computation_dtype(out.dtype)
    lanes = lanes_for(T, real)
    numbers = (B, H, G, T, S, E, lanes, kind_of(out.dtype), real.itemsize)
    calls = pack(SUMS[real], (*numbers, *where(weights), *where(value), *where(out)))
    blocks, state = max(-(-S // SOURCES), 1), E * lanes * real.itemsize
    items = B * H * -(-T // lanes)
    work = (0.02 * E + 0.5) * items * lanes * S  # spare lanes, too
    run_in_slices(_run.of(real), calls, items, work, unknown=True, blocks=blocks, state=state)


@inlined
def _work(calls, real):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes, E = call.lanes, call.E
    staged_width = E if call.kind >= FLOAT16 else 0
    room, rows, (block, ones, own, staged) = reserve(
        real,
        (1, lanes),
        ((SOURCES, lanes), (1, lanes), (1, state_size(call)), (SOURCES, staged_width)),
    )
    if room == 0:
        return
    fill(ones, type(real)(1))
    tiles = -(-call.T // lanes)
    while True:
        item = take(calls)
        if item >= call.stop:
            break
        pair = item // tiles
        sums = numbers_at(real, state_of(call, item, own), (E, lanes))
        _sum_tile(
            call, real, pair // call.H, pair % call.H, item % tiles * lanes, block, sums, ones,
            staged, rows[0],
        )  # fmt: skip
    release(room)
    end(calls)


@inlined
def _sum_tile(call, real, b, h, first_row, block, sums, ones, staged, at):
    """Write the sums of targets [first_row, first_row + lanes) of one head.

    Of a long item only the blocks of this launch are done; ``sums`` is its state.
    """
    cast = type(real)
    lanes, kind, E = call.lanes, call.kind, call.E
    value = call.value + b * call.value_b + h // (call.H // call.G) * call.value_h
    given = call.weights + b * call.weights_b + h * call.weights_h
    written = call.out + b * call.out_b + h * call.out_h
    step = lanes * call.item
    if call.first_block == 0:
        fill(sums, cast(0))
    stop = lesser(call.past_block * SOURCES, call.S)
    for source in range(call.first_block * SOURCES, stop, SOURCES):
        rows = lesser(source + SOURCES, call.S) - source
        for lane in range(lanes):
            t = lesser(first_row + lane, call.T - 1)  # spare lanes repeat the last target
            at[lane] = given + t * call.weights_t + source * call.weights_s
        load_rows(real, kind, at, call.weights_s, rows, block, cast(1))
        for i in range(rows):
            for lane in range(lanes):
                weight = block[i, lane]
                block[i, lane] = cast(-0.0) if weight == cast(0) else weight
        row, row_stride, across = widened(
            real, kind, value + source * call.value_s, call.value_s, call.value_e, rows, E, staged
        )
        visible = leaks(real, row, row_stride, across, rows, E, call.item)
        add_values(
            real, visible, row, row_stride, across, rows, E, address(block), address(sums), step,
            step, address(ones),
        )  # fmt: skip
    if call.past_block * SOURCES < call.S:
        return
    for lane in range(lanes):
        at[lane] = written + lesser(first_row + lane, call.T - 1) * call.out_t
    store_rows(real, kind, at, call.out_e, E, sums, ones[0])
