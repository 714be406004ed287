"""Run a kernel that a user's function is compiled into.

What the function is given, ``score_args``, is laid down in memory for the workers to read, so that
such a kernel, too, is compiled once, and run alone or by the one parallel driver.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from mhakit.backends.cpu.launch import Compiled, Worker
from mhakit.backends.cpu.record import address_of
from mhakit.backends.cpu.score_mod import compiled
from mhakit.backends.cpu.slices import run_in_slices
from mhakit.problem import Problem

__all__ = ["Modified", "starting"]

_one = struct.Struct("=q")

ROOM = 512
"""Bytes that one argument takes at most: an array of eight axes has 23 words."""


class Modified:
    """A kernel whose ``enter_with(score_mod, load)`` returns the function of one worker.

    That function takes records with a field ``arguments``, from which ``load`` reads score_args.
    """

    def __init__(
        self, enter_with: Callable[[Any, Any], Callable[..., None]], records: dict[Any, Any]
    ) -> None:
        self._enter_with, self._records = enter_with, records
        self._compiled: dict[Any, Compiled] = {}

    def run(
        self, problem: Problem, calls: NDArray[Any], items: int, work: float, **paused: int
    ) -> None:
        """Run on all items, as `run_in_slices` does."""
        function, arguments = compiled(problem), problem.score_args
        kind = numba.typeof(arguments)
        kernel = self._compiled.get((problem.real, function, kind))
        if kernel is None:
            enter = self._enter_with(function, _loader(kind))
            kernel = Compiled(enter, self._records[problem.real], cached=False)
            self._compiled[problem.real, function, kind] = kernel
        room = np.empty(ROOM * (len(arguments) + 1), np.uint8)
        if arguments:
            _lay_down(address_of(room), arguments)
        record: Any = calls  # any buffer will do
        place = self._records[problem.real].fields["arguments"][1]
        _one.pack_into(record, place, address_of(room))
        run_in_slices(kernel, calls, items, work, unknown=True, **paused)


def starting(problem: Problem, run: Worker, modified: Modified) -> Callable[..., None]:
    """Return ``start(record, items, work, **slices)`` of the kernel that a problem needs.

    The other one is not compiled.
    """
    if problem.score_mod is None:
        return partial(run_in_slices, run.of(problem.real))
    return partial(modified.run, problem)


def _loader(kind: Any) -> Any:
    """Make the intrinsic that reads a value of a type from an address."""

    @intrinsic
    def load(typing, place):
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            value = context.get_value_type(kind)
            if not len(kind):
                return ir.Constant(value, ir.Undefined)
            return builder.load(builder.inttoptr(args[0], value.as_pointer()), align=1)

        return kind(types.int64), codegen

    return load


@intrinsic
def _store(typing, place, value):
    """Write a value to an address; its arrays are borrowed: nobody counts references there."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        value = _borrowed(context, builder, sig.args[1], args[1])
        builder.store(value, builder.inttoptr(args[0], value.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


def _borrowed(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> ir.Value:
    """Return a value whose arrays belong to nobody, so that using them counts nothing."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        array.parent = ir.Constant(array.parent.type, None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        for i, part in enumerate(kind):
            item = _borrowed(context, builder, part, builder.extract_value(value, i))
            value = builder.insert_value(value, item, i)
    return value


@numba.njit
def _lay_down(place, arguments):
    _store(place, arguments)
