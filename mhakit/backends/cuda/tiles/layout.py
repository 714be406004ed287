"""How rows of numbers lie in shared memory, so that no two of eight rows share a bank."""

from __future__ import annotations

from typing import NamedTuple

from mhakit.backends.cuda.tiles.machine import Number

__all__ = ["CHUNK", "Layout"]

CHUNK = 16
"""Bytes that are moved at once."""


class Layout(NamedTuple):
    """A tile of rows, ``width`` numbers each, from byte ``start`` of shared memory.

    Where a row has a power of two of chunks, their places are swapped by an exclusive or with
    the row; other rows are padded to an odd number of chunks.
    """

    width: int
    start: int
    size: int = 2
    """bytes of a number"""

    @property
    def chunks(self) -> int:
        """Chunks of a row."""
        return self.width * self.size // CHUNK

    @property
    def swapped(self) -> bool:
        """Whether chunks change places."""
        return self.chunks & (self.chunks - 1) == 0 and self.chunks >= 4

    @property
    def pitch(self) -> int:
        """Bytes between rows."""
        return CHUNK * (self.chunks if self.swapped else self.chunks | 1)

    def place(self, row: Number, chunk: Number) -> Number:
        """Return where a chunk lies, without the tile's start."""
        if self.swapped:
            turn = (row >> 1) & 3 if self.chunks == 4 else row & 7
            chunk = chunk ^ turn
        return row * self.pitch + (chunk << 4)

    def step(self, place: Number, rows: Number, chunks: Number) -> Number:
        """Return the address ``rows`` (of 8) and ``chunks`` (even, from 0 or 1) further on."""
        if self.swapped:
            return (place ^ (chunks * 16)) + (rows * self.pitch + self.start)
        return place + (rows * self.pitch + (chunks * 16 + self.start))
