"""Memory of the NumPy twin: it fails where a device would read or write something wrong.

Shared memory remembers, for every four bytes, who wrote them last and who has read them since,
and when the block last waited at a barrier: a read of what another thread wrote since then is a
race, and so is a write over what another thread wrote or read since then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fault", "GlobalMemory", "SharedMemory"]

Array = NDArray[Any]
_BASE, _GAP = 1 << 20, 1 << 16
_NOBODY, _SEVERAL = -1, -2


class Fault(Exception):
    """A tile kernel did what no kernel may do."""


class GlobalMemory:
    """Arrays at made-up addresses, aligned to 256 bytes, with gaps that nobody may touch."""

    def __init__(self) -> None:
        self._arrays: list[tuple[int, Array, NDArray[np.uint8], Array | None]] = []
        self._scratch: set[int] = set()
        self._next = _BASE

    def add(
        self, array: Array, *, output: bool = False, scratch: bool = False, skew: int = 0
    ) -> int:
        """Take an array, which may have any strides, and return its address.

        Scratch is an output of which nobody asks the whole, and of which nothing may be read that
        was not written. ``skew`` bytes spoil the alignment.
        """
        low, high = np.lib.array_utils.byte_bounds(array)
        flat = _bytes(low, high - low, array)
        written = np.zeros(flat.size, np.uint8) if output or scratch else None
        start = self._next + skew
        if scratch:
            self._scratch.add(start)
        self._arrays.append((start, array, flat, written))
        self._next += -(-(flat.size + _GAP) // 256) * 256
        first = array.__array_interface__["data"][0]
        return int(start + (first - low))

    def _find(self, addresses: Array, size: int, verb: str) -> tuple[Any, Array]:
        flat = np.atleast_1d(addresses).astype(np.int64)
        if (flat % size).any():
            raise Fault(f"{verb} of {size} bytes at an address that is no multiple of {size}")
        for start, _, data, written in self._arrays:
            if start <= flat[0] < start + data.size:
                if (flat < start).any() or (flat + size > start + data.size).any():
                    raise Fault(f"{verb} of {size} bytes out of bounds of its array")
                found = (flat - start)[:, None] + np.arange(size)
                watched = written is not None and start in self._scratch and verb == "a read"
                if watched and not np.asarray(written)[found].all():
                    raise Fault("a read of scratch that nobody wrote")
                return (data, written), found
        raise Fault(f"{verb} of {size} bytes where there is no array")

    def read(self, addresses: Array, size: int) -> NDArray[np.uint8]:
        """Return (addresses, size) bytes."""
        (data, _), index = self._find(addresses, size, "a read")
        return np.asarray(data[index])

    def write(self, addresses: Array, content: NDArray[np.uint8]) -> None:
        """Write (addresses, size) bytes to an output, each of them once."""
        if not len(addresses):
            return
        (data, written), index = self._find(addresses, content.shape[1], "a write")
        if written is None:
            raise Fault("a write to an array that is only read")
        np.add.at(written, index, 1)
        if (written[index] > 1).any():
            raise Fault("an output was written twice")
        data[index] = content

    def check_written(self) -> None:
        """Raise unless every byte of every element of the outputs was written."""
        for start, array, _flat, written in self._arrays:
            if written is None or start in self._scratch:
                continue
            low, _ = np.lib.array_utils.byte_bounds(array)
            first = array.__array_interface__["data"][0] - low
            marks = np.lib.stride_tricks.as_strided(
                written[first:], (*array.shape, array.itemsize), (*array.strides, 1)
            )
            if not marks.all():
                missing = int((~marks.all(axis=-1)).sum())
                raise Fault(f"{missing} elements of the output were not written")


def _bytes(low: int, size: int, owner: Array) -> NDArray[np.uint8]:
    """Return the bytes of memory that an array lies in; it keeps the array alive."""

    class Holder:
        def __init__(self) -> None:
            self.kept = owner
            self.__array_interface__ = {
                "version": 3, "typestr": "|u1", "shape": (size,), "data": (low, False),
            }  # fmt: skip

    return np.asarray(Holder())


class SharedMemory:
    """The shared memory of one block."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._data = np.full(size, 0xFF, np.uint8)  # NaN, in whatever dtype
        words = size // 4
        self._filled = np.zeros(words, bool)
        self._writer = np.full(words, _NOBODY)
        self._written = np.full(words, -1)
        self._reader = np.full(words, _NOBODY)
        self._read = np.full(words, -1)
        self._arriving = np.zeros(words, bool)
        self._groups: list[list[tuple[Array, Array, NDArray[np.uint8]]]] = [[]]
        self._turn = 0

    def barrier(self) -> None:
        """Let every thread see what the others did."""
        self._turn += 1

    def _words(self, addresses: Array, size: int, verb: str) -> Array:
        if (addresses % size).any():
            raise Fault(f"{verb} of {size} bytes of shared memory at no multiple of {size}")
        if (addresses < 0).any() or (addresses + size > self.size).any():
            raise Fault(f"{verb} of {size} bytes out of bounds of shared memory")
        return np.asarray(addresses[:, None] // 4 + np.arange(size // 4))

    def read(self, addresses: Array, size: int, readers: Array) -> NDArray[np.uint8]:
        """Return (addresses, size) bytes; a warp reads as one, and as a stranger to its threads."""
        words = self._words(addresses, size, "a read")
        if self._arriving[words].any():
            raise Fault("a read of a copy that was not waited for")
        if not self._filled[words].all():
            raise Fault("a read of shared memory that nobody wrote")
        recent = self._written[words] == self._turn
        if (recent & (self._writer[words] != readers[:, None])).any():
            raise Fault("a read that no barrier separates from the write")
        before = self._read[words] == self._turn
        other = before & (self._reader[words] != readers[:, None])
        spread = np.broadcast_to(readers[:, None], words.shape)
        self._reader[words] = np.where(other, _SEVERAL, spread)
        self._reader[words[self._reader[words] != spread]] = _SEVERAL  # two threads of this read
        self._read[words] = self._turn
        return np.asarray(self._data[addresses[:, None] + np.arange(size)])

    def _check_write(self, words: Array, writers: Array) -> None:
        if self._arriving[words].any():
            raise Fault("a write where a copy is arriving")
        recent = self._written[words] == self._turn
        if (recent & (self._writer[words] != writers[:, None])).any():
            raise Fault("a write that no barrier separates from another's write")
        recent = self._read[words] == self._turn
        if (recent & (self._reader[words] != writers[:, None])).any():
            raise Fault("a write that no barrier separates from another's read")
        if np.unique(words).size != words.size:
            raise Fault("two threads write to one place at once")

    def write(self, addresses: Array, content: NDArray[np.uint8], writers: Array) -> None:
        """Write (addresses, size) bytes."""
        words = self._words(addresses, content.shape[1], "a write")
        self._check_write(words, writers)
        self._put(words, addresses, content, writers)

    def _put(
        self, words: Array, addresses: Array, content: NDArray[np.uint8], writers: Array
    ) -> None:
        self._data[addresses[:, None] + np.arange(content.shape[1])] = content
        self._filled[words] = True
        self._writer[words] = writers[:, None]
        self._written[words] = self._turn

    def copy(self, addresses: Array, content: NDArray[np.uint8], writers: Array) -> None:
        """Begin to write 16 bytes each: they arrive when their group is waited for."""
        words = self._words(addresses, 16, "a copy")
        self._check_write(words, writers)
        self._arriving[words] = True
        self._groups[-1].append((addresses, content, writers))

    def commit(self) -> None:
        """Close the group of copies."""
        self._groups.append([])

    def wait(self, groups: int) -> None:
        """Let all but the last closed groups arrive, for the threads that copied them."""
        while len(self._groups) - 1 > groups:
            for addresses, content, writers in self._groups.pop(0):
                words = addresses[:, None] // 4 + np.arange(4)
                self._arriving[words] = False
                self._put(words, addresses, content, writers)

    def finish(self) -> None:
        """Raise where a copy is still under way at the block's end."""
        if any(self._groups):
            raise Fault("the block ended before its copies arrived")
