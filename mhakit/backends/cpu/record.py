"""Records of numbers: how arrays reach kernels, as an address and strides in bytes.

A kernel is so compiled once a computation dtype, whatever the layout and the strides.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAD", "UNSTARTED", "WHOLE", "address_of", "pack", "records", "where"]

Array = NDArray[Any]

HEAD = (
    "counter", "stop", "workers", "ended", "first_item",
    "first_block", "past_block", "state", "state_bytes",
)  # fmt: skip
"""How records begin that work is taken from: the next item, which workers raise as they take
items; past the last one; how many workers there are; how many of them came to their end; and the
launch's first item.

A launch does only the blocks [first, past) of its items. ``state``, if not 0, is where items,
counted from the launch's first, keep what they have between launches, so many bytes each."""

WHOLE = (0, 2**50, 0)
"""All blocks of an item in one launch."""

UNSTARTED = (0, 0, 0, 0, 0, *WHOLE, 0)
"""The head of a record before its first launch."""

_NOWHERE = (0, 0, 0, 0, 0)


def records(
    integers: Iterable[str], floats: Iterable[str] = ()
) -> dict[np.dtype[Any], np.dtype[Any]]:
    """Return a record's dtype for each computation dtype, which the field ``one`` is of."""
    fields: list[tuple[str, Any]] = [(name, np.int64) for name in integers]
    fields += [(name, np.float64) for name in floats]
    size = 8 * len(fields) + 8
    kinds = {}
    for real in (np.dtype(np.float32), np.dtype(np.float64)):
        names, formats = zip(*fields, ("one", real), strict=True)
        offsets = [8 * i for i in range(len(names))]
        kinds[real] = np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
        )
    return kinds


def pack(kind: np.dtype[Any], integers: Iterable[int]) -> Array:
    """Return one record without floats, its head unstarted: ``integers`` follow it."""
    numbers = (*UNSTARTED, *integers)
    buffer = bytearray(kind.itemsize)
    struct.pack_into(f"={len(numbers)}q", buffer, 0, *numbers)
    return np.frombuffer(buffer, kind)


def _read_field(array: Array) -> int:
    """Read the address from the array object: its first field behind Python's own."""
    return _int64_at(id(array) + _FIRST).value


def _ask_interface(array: Array) -> int:
    """Ask NumPy for the address: nine times the cost, and a call of attention needs eight."""
    return int(array.__array_interface__["data"][0])


_int64_at, _FIRST = ctypes.c_int64.from_address, object.__basicsize__
_probe = np.zeros(3)
_address = _read_field if _read_field(_probe) == _ask_interface(_probe) else _ask_interface


def address_of(array: Array | None) -> int:
    """Return where an array's numbers begin, 0 for None."""
    return 0 if array is None else _address(array)


def where(array: Array | None) -> tuple[int, ...]:
    """Return the address of a (…, …, …, …) array and its strides in bytes, or zeros for None."""
    return _NOWHERE if array is None else (_address(array), *array.strides)
