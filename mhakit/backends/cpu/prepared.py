"""A call of attention made ready: its record, and how its work is shared out among workers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cpu.call import CALL
from mhakit.backends.cpu.record import address_of
from mhakit.problem import Problem

__all__ = ["Prepared"]

Array = NDArray[Any]

_one, _two = struct.Struct("=q"), struct.Struct("=2q")
_FIELDS: Any = CALL[np.dtype(np.float32)].fields
_QUERY, _KEY, _VALUE, _OUT, _PARTIALS = (
    _FIELDS[name][1] for name in ("query", "key", "value", "out", "partials")
)


class Prepared:
    """Runs on the arrays it was packed with, or on others of the same shapes, strides and dtypes.

    ``start(record, items, work, **slices)`` runs the kernel. ``parts`` is the shape of what
    decoding keeps of each segment; every run has its own.
    """

    def __init__(
        self,
        problem: Problem,
        record: Array,
        start: Callable[..., None],
        items: int,
        work: float,
        *,
        sinks: Array | None = None,
        parts: tuple[int, ...] | None = None,
        **slices: int,
    ) -> None:
        self._record, self._bytes = record, record.view(np.uint8).copy()
        self._start, self._items, self._work = start, items, work
        self._parts, self._real, self._slices = parts, problem.real, slices
        # the record points to them, and the caller may drop all other arrays between runs
        self._kept = problem.query_offset, problem.key_lengths, sinks

    def run(self) -> None:
        """Run on the arrays it was packed with."""
        self._run(self._record)

    def run_on(self, query: Array, key: Array, value: Array, out: Array) -> None:
        """Run on other arrays; threads may do so at once."""
        record = self._bytes.copy()
        buffer: Any = record
        _one.pack_into(buffer, _QUERY, address_of(query))
        _one.pack_into(buffer, _KEY, address_of(key))
        _one.pack_into(buffer, _VALUE, address_of(value))
        _one.pack_into(buffer, _OUT, address_of(out))
        self._run(record)

    def _run(self, record: Array) -> None:
        if self._parts is not None:
            partials, ended = np.empty(self._parts, self._real), np.zeros(self._parts[0], np.int64)
            buffer: Any = record
            _two.pack_into(buffer, _PARTIALS, address_of(partials), address_of(ended))
        self._start(record, self._items, self._work, **self._slices)
