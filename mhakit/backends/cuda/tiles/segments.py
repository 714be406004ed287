"""Which kernels decode: what is fixed when they are compiled, and how many blocks they take."""

from __future__ import annotations

from typing import NamedTuple

from mhakit.backends.cuda.tiles.call import view_of
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import WARP, Number
from mhakit.backends.cuda.tiles.variant import SOURCES, Variant
from mhakit.problem import Problem

__all__ = [
    "MERGED",
    "ROWS",
    "SEGMENT",
    "Decoding",
    "Merging",
    "decoding_of",
    "launches_of",
    "part_bytes",
    "parts_shape",
    "rows_of",
    "segments_of",
]

ROWS = 16
"""Targets of all heads that share a key head, at most: the rows of one mma."""

SEGMENT = 256
"""Sources of a block, counted from source 0: a row's bits depend on nothing else."""

MERGED = 16
"""Columns of the output that a merging block writes."""

_RING = 68 * 1024
"""Bytes of keys and values on their way that leave room for three blocks on 228 KiB."""


class Decoding(Variant):
    """A kernel for few targets: each of its warps takes a quarter of every tile of sources."""

    __slots__ = ()

    @property
    def groups(self) -> int:
        """Runs of 16 targets that one warp holds."""
        return 1

    @property
    def query_rows(self) -> int:
        """Rows of queries that are copied, so that every thread copies as many chunks."""
        chunks = Layout(self.D, 0).chunks
        return -(-(-(-ROWS * chunks // self.threads) * self.threads) // chunks)

    @property
    def ring(self) -> int:
        """Where keys and values arrive, stage after stage."""
        return -(-self.query_rows * self.query.pitch // 1024) * 1024

    @property
    def stage_bytes(self) -> int:
        """Keys and values of one tile; kinds lie where keys have been read."""
        key = max(Layout(self.D, 0).pitch, Layout(self.E, 0).pitch)
        return SOURCES * (key + Layout(self.E, 0).pitch)

    @property
    def stages(self) -> int:
        """Tiles that are on their way or worked on."""
        return max(1, min(4, _RING // self.stage_bytes))

    def key_at(self, stage: Number) -> Layout:
        """Return the tile of keys of a stage, by its bytes from the ring's start."""
        return Layout(self.D, stage + self.ring)

    def kinds_at(self, stage: Number) -> Layout:
        """Return the tile that says which values are no numbers."""
        return Layout(self.E, stage + self.ring)

    def value_at(self, stage: Number) -> Layout:
        """Return the tile of values."""
        return Layout(
            self.E, stage + (self.ring + self.stage_bytes - SOURCES * Layout(self.E, 0).pitch)
        )

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block; the parts of its warps lie where sources have been read."""
        parts = self.warps * ROWS * part_bytes(self.E)
        return self.ring + max(self.stages * self.stage_bytes, parts)

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor is to hold at once."""
        return 3 if self.E <= 128 else 2

    @property
    def name(self) -> str:
        """A readable id."""
        return f"decoding-{super().name}"


class Merging(NamedTuple):
    """A kernel that merges what the segments of a row have come to."""

    dtype: str
    E: int
    threads: int = 4 * WARP
    blocks: int = 4
    score_mod: bool = False

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return 48 * self.threads

    @property
    def registers(self) -> int:
        """Registers a thread may use."""
        return 65536 // (self.threads * self.blocks)

    @property
    def name(self) -> str:
        """A readable id."""
        return f"merging-{self.dtype}-E{self.E}"


def part_bytes(width: int) -> int:
    """Return the bytes of a part: its sums, its top, its total, and two numbers more."""
    return 4 * (width + 4)


def decoding_of(problem: Problem) -> Decoding:
    """Return the kernel that decodes a problem."""
    assert problem.value is not None
    query, value = view_of(problem.query), view_of(problem.value)
    return Decoding(
        query.dtype.name,
        query.shape[3],
        value.shape[3],
        rows=ROWS,
        warps=4,
        softcap=problem.softcap != 0,
        bias=problem.bias is not None,
        mask=problem.mask is not None,
        score_mod=problem.score_mod is not None,
    )


def rows_of(problem: Problem) -> int:
    """Return how many rows of the output share a key head, T * H / G."""
    _, H, T, _ = view_of(problem.query).shape
    return T * H // view_of(problem.key).shape[1]


def segments_of(S: int) -> int:
    """Return how many segments so many sources have; no source is one, too."""
    return max(-(-S // SEGMENT), 1)


def parts_shape(problem: Problem) -> tuple[int, ...] | None:
    """Return the shape of the float32 scratch of a decoded problem; one segment needs none."""
    assert problem.value is not None
    B, H, T, _ = view_of(problem.query).shape
    _, _, S, E = view_of(problem.value).shape
    return None if segments_of(S) == 1 else (B, H, T, segments_of(S), E + 4)


def launches_of(problem: Problem, variant: Decoding) -> list[tuple[Decoding | Merging, int]]:
    """Return the kernels that decode a problem, in order, and the blocks of each."""
    B, H, T, _ = view_of(problem.query).shape
    _, G, S, _ = view_of(problem.key).shape
    if B * H * T == 0:
        return []
    launches: list[tuple[Decoding | Merging, int]] = [(variant, B * G * segments_of(S))]
    if segments_of(S) > 1:
        merging = Merging(variant.dtype, variant.E)
        launches.append((merging, B * H * T * (variant.E // MERGED)))
    return launches
