"""Products with learned weights: rows times a matrix, plus a bias.

Columns of the matrix ride in the lanes of attention's tile product; a work item is one tile of
them for a run of rows. The bias costs no pass of its own, and no second team of threads, BLAS's,
is left waiting in a loop for its next product while attention's own want the cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.arrays import numbers_at, records_at
from mhakit.backends.cpu.call import lanes_for
from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.integers import greater, lesser
from mhakit.backends.cpu.launch import Worker, threads
from mhakit.backends.cpu.memory import address, end, take
from mhakit.backends.cpu.record import HEAD, address_of, pack, records
from mhakit.backends.cpu.rows import beside, load_row, load_rows, widen_rows
from mhakit.backends.cpu.scratch import release, reserve, state_of, state_size
from mhakit.backends.cpu.simd import COLUMN, LEAST_BYTES, VECTOR_BYTES, extend, rows_to_panels
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.backends.cpu.storage import kind_of
from mhakit.backends.cpu.tiles import fill
from mhakit.problem import computation_dtype

__all__ = ["project"]

Array = NDArray[Any]

_INTEGERS = (
    *HEAD, "n", "K", "N", "lanes", "few", "item", "weight_kind", "bias_kind",
    "rows", "rows_n", "rows_k", "weight", "weight_k", "weight_n", "bias", "bias_n", "out", "out_n",
)  # fmt: skip

PRODUCT = records(_INTEGERS)
"""``n`` rows of K numbers, a matrix of N columns, a bias and the output as addresses and byte
strides; ``few`` rows are in a work item."""

ROWS = 512
"""Rows at most that share one copy of a tile of the matrix, where it is copied for every item."""

SHARE = 128
"""Rows at most in an item whose tile may be there from the item before. Short items end together
even where a worker has half a core, as it has while BLAS's threads wait in a loop."""

DEPTH = 768
"""Numbers of a column that a copied tile holds, which stays in the second cache."""

PANEL = COLUMN * VECTOR_BYTES
"""Bytes of a tile's row that lie together, as many as a product takes at once."""

NEAR = 64
"""Rows that all columns of a tile are made of before the next rows: they stay in a cache."""

FEWEST, LEAST = 32, 2**20
"""Rows, and products of numbers, under which BLAS multiplies: the copy and the start of a kernel
would cost more than they save."""


def _enter(calls):
    """Be one worker."""
    records = records_at(calls, 1)
    _work(records, records[0].one)


_run = Worker(_enter, PRODUCT)


def project(rows: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write rows (n, K) @ weight (K, N) + bias (N,) to ``out``, (n, N), whose rows are contiguous.

    ``rows`` and ``out`` are of the computation dtype; weight and bias may be narrower. A sum is in
    the order of K: where BLAS does not multiply, a row's bits do not depend on the others.
    """
    real = rows.dtype
    if len(rows) < FEWEST or rows.size * weight.shape[1] < LEAST:
        np.matmul(rows, weight.astype(real, copy=False), out=out)
        if bias is not None:
            np.add(out, bias.astype(real, copy=False), out=out)
    else:
        _multiply(
            rows, _readable(weight, real), bias if bias is None else _readable(bias, real), out
        )


def _readable(given: Array, real: np.dtype[Any]) -> Array:
    """Return an array as kernels of a computation dtype can read it."""
    if computation_dtype(given.dtype) == real and given.flags.aligned:
        return given
    return np.asarray(given, real, order="C")


def _multiply(rows: Array, weight: Array, bias: Array | None, out: Array) -> None:
    n, K = rows.shape
    N, real = weight.shape[1], rows.dtype
    lanes = lanes_for(N, real)
    tiles = -(-N // lanes)
    most = SHARE if K <= DEPTH else ROWS
    runs = max(-(-n // most), min(-(-4 * threads() // tiles), n // FEWEST))
    few = -(-n // runs // 4) * 4
    placed = (0, 0) if bias is None else (address_of(bias), *bias.strides)
    calls = pack(
        PRODUCT[real],
        (
            n, K, N, lanes, few, real.itemsize, kind_of(weight.dtype),
            kind_of(real if bias is None else bias.dtype), address_of(rows), *rows.strides,
            address_of(weight), *weight.strides, *placed, address_of(out), out.strides[0],
        ),
    )  # fmt: skip
    blocks, items = max(-(-K // DEPTH), 1), -(-n // few) * tiles
    work = 0.0125 * real.itemsize * 16 / VECTOR_BYTES * K * items * lanes * few
    state = few * lanes * real.itemsize
    run_in_slices(_run.of(real), calls, items, work, unknown=True, blocks=blocks, state=state)


@inlined
def _work(calls, real):
    """Take work items until none is left, with scratch tiles made once."""
    call = calls[0]
    lanes, wide = call.lanes, PANEL // call.item
    panels = -(-lanes // wide)
    room, places, (tile, bias, own) = reserve(
        real,
        (1, wide),
        ((panels * lesser(DEPTH, call.K), wide), (1, lanes), (1, state_size(call))),
    )
    if room == 0:
        return
    runs, held = -(-call.n // call.few), -1
    while True:
        taken = take(calls)
        if taken >= call.stop:
            break
        item = _dealt(call, taken)
        run, column = item % runs, item // runs
        sums = numbers_at(real, state_of(call, item, own), (call.few, lanes))
        copied = column == held and call.K <= DEPTH
        _project_tile(
            call, real, run * call.few, column * lanes, places[0], copied, tile, bias, sums
        )
        held = column
    release(room)
    end(calls)


@inlined
def _dealt(call, taken):
    """Return the item of its launch that a worker does, by what it took from the counter.

    Workers that take turns walk each through a part of the items, run after run of one tile, so
    that each mostly stays with a tile that it has copied.
    """
    count, i = call.stop - call.first_item, taken - call.first_item
    part, k = i % call.workers, i // call.workers
    each, longer = count // call.workers, count % call.workers
    return call.first_item + part * each + lesser(part, longer) + k


@inlined
def _project_tile(call, real, first_row, first, places, copied, tile, bias, sums):
    """Write the columns [first, first + lanes) of a run of rows.

    Of a long item only the blocks of this launch are done; ``sums`` is its state. Where the tile
    is ``copied``, it lies in ``tile`` already.
    """
    count = lesser(call.few, call.n - first_row)
    columns, wide = lesser(call.lanes, call.N - first), PANEL // call.item
    width = -(-columns * call.item // LEAST_BYTES) * LEAST_BYTES
    out, out_row = call.out + first_row * call.out_n + first * call.item, call.out_n
    if columns < call.lanes:  # a product writes whole parts of registers
        out, out_row = address(sums), call.lanes * call.item
    begin, begin_row = address(bias), np.int64(0)
    if call.first_block > 0:
        begin, begin_row = out, out_row
    elif call.bias != 0:
        place = call.bias + first * call.bias_n
        load_row(real, call.bias_kind, place, call.bias_n, columns, bias[0])
    else:
        fill(bias, type(real)(0))
    past = greater(lesser(call.past_block * DEPTH, call.K), 1)
    for k in range(call.first_block * DEPTH, past, DEPTH):
        depth = lesser(k + DEPTH, call.K) - k
        panels = numbers_at(real, address(tile), (-(-columns // wide), depth, wide))
        if not copied:
            _copy(call, real, k, first, columns, places, panels)
        row = call.rows + first_row * call.rows_n + k * call.rows_k
        for i in range(0, count, NEAR):
            for start in range(0, width, PANEL):
                extend(
                    real, row + i * call.rows_n, call.rows_n, call.rows_k,
                    address(tile) + start * depth, out + i * out_row + start, PANEL,
                    lesser(PANEL, width - start), lesser(NEAR, count - i), depth,
                    begin + i * begin_row + start, out_row, begin_row,
                )  # fmt: skip
        begin, begin_row = out, out_row
    if columns < call.lanes and call.past_block * DEPTH >= call.K:
        for i in range(count):
            place = call.out + (first_row + i) * call.out_n + first * call.item
            line = numbers_at(real, place, columns)
            for lane in range(columns):
                line[lane] = sums[i, lane]


@inlined
def _copy(call, real, k, first, columns, places, panels):
    """Write rows of some columns of the matrix, from row k on, to panels, (panels, depth, wide)."""
    depth, wide = panels.shape[1:]
    place = call.weight + k * call.weight_k + first * call.weight_n
    if call.weight_k < call.weight_n:  # its columns are what lies together
        for i in range(panels.shape[0]):
            for lane in range(wide):
                places[lane] = place + lesser(i * wide + lane, columns - 1) * call.weight_n
            load_rows(
                real, call.weight_kind, places, call.weight_k, depth, panels[i], type(real)(1)
            )
    else:
        done = 0
        if beside(call.weight_kind, call.item, call.weight_n):
            done = columns // wide
            rows_to_panels(
                real, call.weight_kind, call.weight_n, place, call.weight_k, depth, done,
                address(panels), depth * PANEL,
            )  # fmt: skip
        for i in range(done, panels.shape[0]):
            widen_rows(
                real, call.weight_kind, place + i * wide * call.weight_n, call.weight_k,
                call.weight_n, depth, lesser(wide, columns - i * wide), panels[i],
            )  # fmt: skip
