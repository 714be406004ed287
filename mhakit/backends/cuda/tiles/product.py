"""How a tensor core multiplies: 16-bit numbers as they are, float32 in three products of TF32.

A float32 is a big TF32 and a small one, the rest; small * big and big * small correct big * big,
and small * small, 2^-22 of it, is left out (arXiv:2203.03341). Tensor cores cut off where they
add, which leans to one side: so they add up few numbers, big products apart from small ones, and
the rest is added as float32 is. Both factors are halved beforehand, so that none is rounded up to
an infinity; what is infinite has a rest that is NaN, which then does not count.
"""

from __future__ import annotations

from typing import Protocol

from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State, lane_of
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = ["Product", "product_of"]


class Product(Protocol):
    """What an algorithm asks of the multiplication of fragments."""

    depth: int
    """sources that one instruction sums over"""

    def at_once(self, variant: Variant, steps: int) -> int:
        """Return how many of the steps to a score are unrolled, a divisor."""

    def operand(self, m: Machine, words: State) -> State:
        """Return words of shared memory as what is multiplied."""

    def begin(self, m: Machine) -> State:
        """Return sums of 0."""

    def add(self, m: Machine, a: State, b: State, sums: State) -> State:
        """Return sums + a @ b, of few steps."""

    def add_score(self, m: Machine, a: State, b: State, sums: State) -> State:
        """Return sums + a @ b, of many steps."""

    def scores(self, m: Machine, sums: State) -> State:
        """Return four scores, sums of products of two operands."""

    def carry(self, m: Machine, four: State, factors: State) -> State:
        """Return four float32 of the output, times factors where `carried` does not do it."""

    def go_on(self, m: Machine, four: State) -> State:
        """Return what a tile's products with values are added to, where `carry` gave four."""

    def carried(self, m: Machine, sums: State, four: State, factors: State) -> State:
        """Return four float32 of the output and what was added since `go_on`."""

    def weights(self, m: Machine, group: list[State], k: int) -> State:
        """Return the weights of sources depth * k + … as an operand."""

    def values(self, m: Machine, layout: Layout, k: Number, pair: Number) -> list[State]:
        """Return words of sources depth * k + …, columns 16 pair + …, of two runs of columns."""

    def flags(self, m: Machine, word: Number, k: Number) -> State:
        """Return flags of a word as words 0 and 1.0, in the order of `weights`."""

    def neighbours(self, m: Machine, runs: list[State], half: int) -> list[tuple[Number, State]]:
        """Return what a lane has of 16 columns of one of its two rows, each with its place."""


class Halves:
    """16-bit numbers: mma.sync m16n8k16."""

    depth = 16

    def __init__(self, one: int) -> None:
        self.one = one

    def at_once(self, variant: Variant, steps: int) -> int:
        return steps

    def operand(self, m: Machine, words: State) -> State:
        return words

    def begin(self, m: Machine) -> State:
        return [m.float32(0.0)] * 4

    def add(self, m: Machine, a: State, b: State, sums: State) -> State:
        return m.multiply(a, b, sums)

    add_score = add

    def scores(self, m: Machine, sums: State) -> State:
        return sums

    def carry(self, m: Machine, four: State, factors: State) -> State:
        return [x * factor for x, factor in zip(four, factors, strict=True)]

    def go_on(self, m: Machine, four: State) -> State:
        return four

    def carried(self, m: Machine, sums: State, four: State, factors: State) -> State:
        return sums

    def weights(self, m: Machine, group: list[State], k: int) -> State:
        return [m.pack(group[n][i], group[n][i + 1]) for n in (2 * k, 2 * k + 1) for i in (0, 2)]

    def values(self, m: Machine, layout: Layout, k: Number, pair: Number) -> list[State]:
        lane = lane_of(m)
        place = layout.place(lane & 15, lane >> 4)
        found = m.load_matrices(layout.step(place, 16 * k, 2 * pair), transposed=True)
        return [found[:2], found[2:]]

    def flags(self, m: Machine, word: Number, k: Number) -> State:
        word = word >> m.word(k << 3)
        return [
            ((word >> bit) & 1) * self.one | ((word >> (bit + 1)) & 1) * (self.one << 16)
            for bit in (0, 2, 4, 6)
        ]

    def neighbours(self, m: Machine, runs: list[State], half: int) -> list[tuple[Number, State]]:
        first = (lane_of(m) & 3) << 1
        return [(first + 8 * n, four[2 * half : 2 * half + 2]) for n, four in enumerate(runs)]


class ThreeTf32:
    """Float32: mma.sync m16n8k8, three times.

    Sums are big products and small ones. The numbers of sources are free to choose: number q of
    an operand is source 2 q, number q + 4 source 2 q + 1, so that weights stay where they are;
    and column r of the first run of values is column 2 r of 16, of the second 2 r + 1.
    """

    depth = 8

    def at_once(self, variant: Variant, steps: int) -> int:
        # a loop keeps the compiler from loading what changes scores before it is needed
        if not (variant.changes or variant.mask):
            return steps
        few = (1,) if variant.softcap and variant.score_mod else (1, 2, 3)
        return max(n for n in few if steps % n == 0)

    def operand(self, m: Machine, words: State) -> State:
        return self._split(m, [m.of_bits(word) * 0.5 for word in words])

    def _split(self, m: Machine, numbers: State) -> State:
        big = [m.tf32(x) for x in numbers]
        return [big, [m.bits(x - m.of_bits(b)) for x, b in zip(numbers, big, strict=True)]]

    def begin(self, m: Machine) -> State:
        return [[m.float32(0.0)] * 4, [m.float32(0.0)] * 4]

    def add(self, m: Machine, a: State, b: State, sums: State) -> State:
        return [m.multiply(a[0], b[0], sums[0]), self._correct(m, a, b, sums[1])]

    def add_score(self, m: Machine, a: State, b: State, sums: State) -> State:
        found = m.multiply(a[0], b[0], [m.float32(0.0)] * 4)
        rounded = [x + y for x, y in zip(sums[0], found, strict=True)]
        return [rounded, self._correct(m, a, b, sums[1])]

    def _correct(self, m: Machine, a: State, b: State, sums: State) -> State:
        return m.multiply(a[0], b[1], m.multiply(a[1], b[0], sums))

    def _total(self, m: Machine, sums: State) -> State:
        # where an infinity or a NaN is, the big products say so, and what corrects them is NaN
        return [
            m.select(big - big == 0.0, big + small, big) for big, small in zip(*sums, strict=True)
        ]

    def scores(self, m: Machine, sums: State) -> State:
        return self._total(m, sums)

    def carry(self, m: Machine, four: State, factors: State) -> State:
        return four

    def go_on(self, m: Machine, four: State) -> State:
        return self.begin(m)

    def carried(self, m: Machine, sums: State, four: State, factors: State) -> State:
        return [
            m.fma(x, factor, found)
            for x, factor, found in zip(four, factors, self._total(m, sums), strict=True)
        ]

    def weights(self, m: Machine, group: list[State], k: int) -> State:
        a, b, c, d = group[k]
        return self._split(m, [a, c, b, d])

    def values(self, m: Machine, layout: Layout, k: Number, pair: Number) -> list[State]:
        lane = lane_of(m)
        source, column = (lane & 3) << 1, lane >> 2
        pairs = []
        for further in (0, 1):
            place = layout.place(source + further, column >> 1) + ((column & 1) << 3)
            pairs.append(m.load_pair(layout.step(place, 8 * k, 4 * pair)))
        return [list(words) for words in zip(*pairs, strict=True)]

    def flags(self, m: Machine, word: Number, k: Number) -> State:
        word = word >> m.word(k << 2)
        return [((word >> bit) & 1) * 0x3F800000 for bit in (0, 2, 1, 3)]

    def neighbours(self, m: Machine, runs: list[State], half: int) -> list[tuple[Number, State]]:
        even, odd = (four[2 * half : 2 * half + 2] for four in runs)
        return [((lane_of(m) & 3) << 2, [even[0], odd[0], even[1], odd[1]])]


def product_of(variant: Variant) -> Product:
    """Return how a variant multiplies."""
    return _PRODUCTS[variant.product, variant.dtype]


_PRODUCTS: dict[tuple[str, str], Product] = {
    ("mma", "bfloat16"): Halves(0x3F80),
    ("mma", "float16"): Halves(0x3C00),
    ("3xtf32", "float32"): ThreeTf32(),
}
