"""What a warp makes of its share of a tile of sources: by tensor cores, or by fma.

Every warp holds all rows of its block, for the 16 sources of a tile that are its own, and columns
that are its own where these are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mhakit.backends.cuda.tiles import fma, fragments
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State, warp_of
from mhakit.backends.cuda.tiles.product import product_of
from mhakit.backends.cuda.tiles.segments import SHARE, Decoding, FmaDecoding
from mhakit.backends.cuda.tiles.specials import add_specials, sort_out

__all__ = ["Share", "share_of"]


class Share(Protocol):
    """How a warp multiplies; its sums are nested lists that only itself can read."""

    def begin(self) -> State:
        """Return sums of 0."""

    def score(self, key: Layout) -> list[list[State]]:
        """Return the bare scores of this warp's sources of a tile of keys."""

    def ready(self, scores: list[list[State]], weights: list[list[State]]) -> State:
        """Return weights as `add` takes them, after a barrier."""

    def carry(self, sums: State, carries: State) -> State:
        """Return sums times their rows' factors, or as they are where `add` does it."""

    def settle(self, value: Layout, kinds: Layout, seen: State, sums: State) -> State:
        """Return sums and what is no number among the values that a row sees.

        The tile of values is left without, or `add` takes care of it.
        """

    def add(
        self, value: Layout, weights: State, sums: State, carries: State, special: Number
    ) -> State:
        """Return sums + weights @ values; ``special`` says whether any is no number."""

    def columns(self, sums: State, row: int) -> Iterator[tuple[Number, State]]:
        """Yield what this thread holds of its row, neighbours with the first one's column."""


class _ByTensorCores:
    """Numbers of any dtype, by mma.sync."""

    def __init__(self, m: Machine, variant: Decoding) -> None:
        self.m, self.variant, self.product = m, variant, product_of(variant)

    def begin(self) -> State:
        return [[[self.m.float32(0.0)] * 4 for _ in range(self.variant.held // 8)]]

    def score(self, key: Layout) -> list[list[State]]:
        m = self.m
        first = self.variant.share(warp_of(m)) << 4
        return fragments.score_products(m, self.variant, key, m.int32(0), first, SHARE)

    def ready(self, scores: list[list[State]], weights: list[list[State]]) -> State:
        return weights

    def carry(self, sums: State, carries: State) -> State:
        return fragments.carry_over(self.m, self.variant, sums, carries)

    def settle(self, value: Layout, kinds: Layout, seen: State, sums: State) -> State:
        m, variant = self.m, self.variant
        sort_out(m, variant, value, kinds)
        m.barrier()
        share, kinds = variant.share(warp_of(m)), variant.run_of(kinds, warp_of(m))
        return [add_specials(m, variant, kinds, seen, share, sums[0])]

    def add(
        self, value: Layout, weights: State, sums: State, carries: State, special: Number
    ) -> State:
        m, variant = self.m, self.variant
        run = variant.run_of(value, warp_of(m))
        first = variant.share(warp_of(m)) * (SHARE // self.product.depth)
        operands = fragments.operands_of(m, variant, weights)
        return fragments.add_products(m, variant, run, first, operands, sums, carries)

    def columns(self, sums: State, row: int) -> Iterator[tuple[Number, State]]:
        for pair in range(self.variant.held // 16):
            runs = sums[0][2 * pair : 2 * pair + 2]
            for column, numbers in self.product.neighbours(self.m, runs, row):
                yield column + 16 * pair, [x * self.variant.worth for x in numbers]


class _ByFma:
    """Numbers of float32, by fma; a warp exchanges its weights in shared memory."""

    def __init__(self, m: Machine, variant: FmaDecoding) -> None:
        self.m, self.variant = m, variant

    def begin(self) -> State:
        return fma.no_sums(self.m, self.variant)

    def score(self, key: Layout) -> list[list[State]]:
        first = self.variant.share(warp_of(self.m)) << 4
        return fma.score_products(self.m, self.variant, key, first, SHARE)

    def ready(self, scores: list[list[State]], weights: list[list[State]]) -> State:
        tile = self.variant.weights_of(warp_of(self.m))
        fma.store_weights(self.m, self.variant, tile, scores, weights)
        return []

    def carry(self, sums: State, carries: State) -> State:
        return fma.carry_over(sums, carries)

    def settle(self, value: Layout, kinds: Layout, seen: State, sums: State) -> State:
        return sums

    def add(
        self, value: Layout, weights: State, sums: State, carries: State, special: Number
    ) -> State:
        warp, variant = warp_of(self.m), self.variant
        tiles = variant.weights_of(warp), variant.run_of(value, warp)
        sources = variant.share(warp) << 4, SHARE
        return fma.add_products(self.m, variant, tiles, sources, sums, careful=special)

    def columns(self, sums: State, row: int) -> Iterator[tuple[Number, State]]:
        for j, chunk in enumerate(fma.chunks_held(self.m, self.variant)):
            yield chunk << 2, sums[row][4 * j : 4 * j + 4]


def share_of(m: Machine, variant: Decoding) -> Share:
    """Return how a warp of a variant multiplies on a machine."""
    if isinstance(variant, FmaDecoding):
        return _ByFma(m, variant)
    return _ByTensorCores(m, variant)
