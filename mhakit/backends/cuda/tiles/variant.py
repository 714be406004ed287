"""Which tile kernel: what is fixed when it is compiled."""

from __future__ import annotations

from typing import NamedTuple

from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import WARP, Number

__all__ = ["SOURCES", "Fma", "Variant"]

SOURCES = 64
"""Sources of a tile, of float32 half as many. It is the same in all variants of a product: a row's
bits depend on it."""


class Variant(NamedTuple):
    """A kernel of forward attention."""

    dtype: str
    D: int
    E: int
    rows: int
    """targets of a block"""
    warps: int
    softcap: bool = False
    bias: bool = False
    mask: bool = False
    score_mod: bool = False
    product: str = "mma"
    """``mma`` of 16-bit numbers; of float32 ``3xtf32``, or ``fma``, where a lane holds every fourth
    row of its warp's, and every eighth source and chunk of a tile's"""

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 2

    @property
    def worth(self) -> float:
        """What operands are divided by before they are multiplied."""
        return 2.0 if self.product == "3xtf32" else 1.0

    @property
    def sources(self) -> int:
        """Sources of a tile."""
        return SOURCES if self.product == "mma" else SOURCES // 2

    @property
    def groups(self) -> int:
        """Runs of targets, two to a lane, that one warp holds."""
        return self.rows * self.lanes // (2 * WARP * self.warps)

    @property
    def lanes(self) -> int:
        """Lanes of a warp that share a row."""
        return 8 if self.product == "fma" else 4

    def row(self, warp: Number, lane: Number, row: int) -> Number:
        """Return which row of the block is number ``row`` of a thread's."""
        apart = WARP // self.lanes
        shift = self.lanes.bit_length() - 1
        return warp * (2 * self.groups * apart) + (lane >> shift) + apart * row

    def first_column(self, lane: Number) -> Number:
        """Return which column of a tile of scores is a thread's first."""
        mine = lane & (self.lanes - 1)
        return mine if self.product == "fma" else mine << 1

    def column(self, n: int, i: int) -> int:
        """Return how far number i of four is from it."""
        return 8 * (2 * n + i % 2) if self.product == "fma" else 8 * n + i % 2

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.warps

    @property
    def changes(self) -> bool:
        """Whether a score is more than a product times a number."""
        return self.softcap or self.bias or self.score_mod

    @property
    def hides_anywhere(self) -> bool:
        """Whether a source may be hidden elsewhere than at the border of a band."""
        return self.bias or self.mask or self.score_mod

    @property
    def held(self) -> int:
        """Columns of the values that one warp holds sums of."""
        return self.E

    @property
    def query(self) -> Layout:
        """The tile of queries, and of the output once they are read."""
        return Layout(self.D, 0, self.size)

    @property
    def output(self) -> Layout:
        """The tile of the output."""
        return Layout(self.E, 0, self.size)

    @property
    def key(self) -> Layout:
        """The tile of keys."""
        start = self.rows * max(self.query.pitch, self.output.pitch)
        return Layout(self.D, start, self.size)

    @property
    def kinds(self) -> Layout:
        """The tile that says which values are no numbers; it lies where keys have been read."""
        return Layout(self.E, self.key.start, self.size)

    @property
    def value(self) -> Layout:
        """The tile of values."""
        start = self.key.start + self.sources * max(self.key.pitch, self.kinds.pitch)
        return Layout(self.E, start, self.size)

    @property
    def marks(self) -> int:
        """Where it is noted which sums are no numbers, a byte each."""
        return self.value.start + self.sources * self.value.pitch

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return self.marks + self.rows * self.E

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor is to hold at once."""
        return 2

    @property
    def registers(self) -> int:
        """Registers a thread may use so that they do: of 65536, in steps of 8, at most 255."""
        return min(65536 // (self.threads * self.blocks) // 8 * 8, 255)

    @property
    def name(self) -> str:
        """A readable id."""
        flags = [f for f in ("softcap", "bias", "mask", "score_mod") if getattr(self, f)]
        width = f"D{self.D}" if self.D == self.E else f"D{self.D}E{self.E}"
        tile = f"{self.rows}x{self.sources}"
        product = [] if self.product == "mma" else [self.product]
        return "-".join([self.dtype, *product, width, tile, f"{self.warps}w", *flags])


class Fma(Variant):
    """A kernel of forward attention for float32, without tensor cores or asynchronous copies."""

    __slots__ = ()

    @property
    def key(self) -> Layout:
        """The tile of keys."""
        return Layout(self.D, self.rows * self.query.pitch, self.size)

    @property
    def value(self) -> Layout:
        """The tile of values; it lies where keys have been read."""
        return Layout(self.E, self.key.start, self.size)

    @property
    def weights(self) -> Layout:
        """The tile of weights."""
        start = self.key.start + self.sources * max(self.key.pitch, self.value.pitch)
        return Layout(self.sources, start, self.size)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return self.weights.start + self.rows * self.weights.pitch
