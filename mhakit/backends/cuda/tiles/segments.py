"""Which kernels decode: what is fixed when they are compiled, and how many blocks they take."""

from __future__ import annotations

from typing import NamedTuple

from mhakit.backends.cuda.tiles.call import product_for, view_of
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import WARP, Number
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.problem import Problem

__all__ = [
    "MERGED",
    "ROWS",
    "SEGMENT",
    "SHARE",
    "Decoding",
    "FmaDecoding",
    "Merging",
    "decoding_of",
    "launches_of",
    "part_bytes",
    "parts_shape",
    "rows_of",
    "segments_of",
    "warps_for",
]

ROWS = 16
"""Targets of all heads that share a key head, at most: the rows of one mma."""

SEGMENT = 256
"""Sources of a block, counted from source 0: a row's bits depend on nothing else."""

MERGED = 16
"""Columns of the output that a merging block writes."""

SHARE = 16
"""Sources of a tile that one warp takes."""

_RING = 17 * 1024
"""Bytes of keys and values on their way, a warp: 228 KiB hold three blocks of four, five of two."""


class Decoding(Variant):
    """A kernel for few targets: each of its warps takes its share of every tile of sources.

    Where a warp has no registers for all columns of the values, neighbours have the same share, and
    a run of columns each.
    """

    __slots__ = ()

    @property
    def runs(self) -> int:
        """Warps that have the same share of a tile."""
        return self.warps * SHARE // self.sources

    @property
    def held(self) -> int:
        """Columns of a run."""
        return self.E // self.runs

    def share(self, warp: Number) -> Number:
        """Return which share of a tile is a warp's."""
        return warp // self.runs

    def run_of(self, tile: Layout, warp: Number) -> Layout:
        """Return a tile of values from the first column on that is a warp's."""
        run = (warp % self.runs) * (self.held * self.size)
        return tile._replace(start=run + tile.start)

    @property
    def groups(self) -> int:
        """Runs of targets, two to a lane, that every warp holds."""
        return ROWS * self.lanes // (2 * WARP)

    def row(self, warp: Number, lane: Number, row: int) -> Number:
        """Return which row of the block is number ``row`` of a thread's, in whatever warp."""
        return super().row(0, lane, row)

    @property
    def query_rows(self) -> int:
        """Rows of queries that are copied, so that every thread copies as many chunks."""
        chunks = self.query.chunks
        return -(-(-(-ROWS * chunks // self.threads) * self.threads) // chunks)

    @property
    def ring(self) -> int:
        """Where keys and values arrive, stage after stage."""
        return -(-self.query_rows * self.query.pitch // 1024) * 1024

    @property
    def stage_bytes(self) -> int:
        """Keys and values of one tile; kinds lie where keys have been read."""
        return self.sources * (max(self.query.pitch, self.output.pitch) + self.output.pitch)

    @property
    def stages(self) -> int:
        """Tiles that are on their way or worked on."""
        return max(1, min(4, _RING * self.warps // self.stage_bytes))

    def key_at(self, stage: Number) -> Layout:
        """Return the tile of keys of a stage, by its bytes from the ring's start."""
        return Layout(self.D, stage + self.ring, self.size)

    def kinds_at(self, stage: Number) -> Layout:
        """Return the tile that says which values are no numbers."""
        return Layout(self.E, stage + self.ring, self.size)

    def value_at(self, stage: Number) -> Layout:
        """Return the tile of values."""
        start = self.ring + self.stage_bytes - self.sources * self.output.pitch
        return Layout(self.E, stage + start, self.size)

    @property
    def past_ring(self) -> int:
        """Where the ring ends."""
        return self.ring + self.stages * self.stage_bytes

    @property
    def part_width(self) -> int:
        """Columns that a warp's part has room for in shared memory."""
        return self.held

    @property
    def part_room(self) -> int:
        """Bytes of a row of a warp's part in shared memory: each lane of the row adds a number."""
        return 4 * (self.part_width + self.lanes)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block; the parts of its warps lie where sources have been read."""
        return max(self.past_ring, self.ring + self.warps * ROWS * self.part_room)

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor is to hold at once."""
        if self.E > 128:
            return 2
        return 3 if self.warps == 4 else 5 if self.E <= 96 else 4

    @property
    def name(self) -> str:
        """A readable id."""
        return f"decoding-{super().name}"


class FmaDecoding(Decoding):
    """A kernel for few targets of float32, without tensor cores."""

    __slots__ = ()

    @property
    def stage_bytes(self) -> int:
        """Keys and values of one tile; there are no kinds."""
        return self.sources * (self.query.pitch + self.output.pitch)

    def weights_of(self, warp: Number) -> Layout:
        """Return the tile of a warp's weights."""
        pitch = Layout(SHARE, 0, self.size).pitch
        return Layout(SHARE, warp * (ROWS * pitch) + self.past_ring, self.size)

    @property
    def part_width(self) -> int:
        """Columns that a warp's part has room for: what no lane has a column for, too."""
        return -(-self.held // 32) * 32

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return max(super().shared_bytes, self.weights_of(self.warps).start)


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


def warps_for(product: str, E: int) -> int:
    """Return the warps of a block: one for each share of a tile, two where float32 is wide."""
    return 4 if product == "mma" or E > 128 else 2


def decoding_of(problem: Problem, capability: tuple[int, int] = (9, 0)) -> Decoding:
    """Return the kernel that decodes a problem on a device of a compute capability."""
    assert problem.value is not None
    query, value = view_of(problem.query), view_of(problem.value)
    product = product_for(query.dtype.name, capability)
    return (FmaDecoding if product == "fma" else Decoding)(
        query.dtype.name,
        query.shape[3],
        value.shape[3],
        rows=ROWS,
        warps=warps_for(product, value.shape[3]),
        softcap=problem.softcap != 0,
        bias=problem.bias is not None,
        mask=problem.mask is not None,
        score_mod=problem.score_mod is not None,
        product=product,
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
