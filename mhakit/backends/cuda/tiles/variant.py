"""Which tile kernel: what is fixed when it is compiled."""

from __future__ import annotations

from typing import NamedTuple

from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import WARP

__all__ = ["SOURCES", "Variant"]

SOURCES = 64
"""Sources of a tile. It is the same in all variants: a row's bits depend on it."""


class Variant(NamedTuple):
    """A kernel of forward attention for 16-bit input."""

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

    @property
    def groups(self) -> int:
        """Runs of 16 targets that one warp holds."""
        return self.rows // (16 * self.warps)

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
    def query(self) -> Layout:
        """The tile of queries, and of the output once they are read."""
        return Layout(self.D, 0)

    @property
    def output(self) -> Layout:
        """The tile of the output."""
        return Layout(self.E, 0)

    @property
    def key(self) -> Layout:
        """The tile of keys."""
        return Layout(self.D, self.rows * max(self.query.pitch, self.output.pitch))

    @property
    def kinds(self) -> Layout:
        """The tile that says which values are no numbers; it lies where keys have been read."""
        return Layout(self.E, self.key.start)

    @property
    def value(self) -> Layout:
        """The tile of values."""
        start = self.key.start + SOURCES * max(self.key.pitch, self.kinds.pitch)
        return Layout(self.E, start)

    @property
    def marks(self) -> int:
        """Where it is noted which sums are no numbers, a byte each."""
        return self.value.start + SOURCES * self.value.pitch

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
        return "-".join([self.dtype, width, f"{self.rows}x{SOURCES}", f"{self.warps}w", *flags])
