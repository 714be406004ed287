"""Values that are no numbers, where some targets of a tile may not see them.

A product with a weight of 0 would hand NaN to everybody. So where a tile hides anything, the
values are looked at; what is no finite number is replaced by 0, which changes no bit for those
who may not see it, and noted for those who may: mma counts, for each target and column, the NaN,
+inf and -inf that it sees. What was noted is added to the finished sums.
"""

from __future__ import annotations

from mhakit.backends.cuda.tiles.fragments import chunks_of
from mhakit.backends.cuda.tiles.layout import Layout
from mhakit.backends.cuda.tiles.machine import Machine, Number, State
from mhakit.backends.cuda.tiles.product import product_of
from mhakit.backends.cuda.tiles.variant import Variant

__all__ = [
    "add_marked",
    "add_specials",
    "clear_marks",
    "has_specials",
    "mark_specials",
    "sort_out",
]

_BITS = {
    "bfloat16": (0x7F80, 0x007F), "float16": (0x7C00, 0x03FF), "float32": (0x7F800000, 0x007FFFFF)
}  # fmt: skip
"""Of a number: the exponent and the mantissa."""
_COUNTS = {
    "bfloat16": (0x3D80, 0x4180, 0x4580), "float16": (0x2C00, 0x4C00, 0x6C00),
    "float32": (0x3D800000, 0x41800000, 0x45800000),
}  # fmt: skip
"""2^-4, 2^4 and 2^12: what a NaN, a +inf and a -inf count for; 16 sources need no carry."""
_SHIFTS = {2: (0, 16), 4: (0,)}
"""Where the numbers of a word are, by their size."""


def has_specials(m: Machine, variant: Variant, value: Layout) -> Number:
    """Return whether this thread copied a value that is not finite; its copies have arrived."""
    exponent = _BITS[variant.dtype][0]
    found = m.word(0)
    for row, chunk in chunks_of(m, variant, value, variant.sources):
        for word in m.load_shared(value.place(row, chunk) + value.start):
            for shift in _SHIFTS[variant.size]:
                mask = exponent << shift
                found = found | m.word((word & mask) == mask)
    return found != 0


def clear_marks(m: Machine, variant: Variant) -> None:
    """Note that no element of the output has a special yet."""
    for group in range(variant.groups):
        for n in range(variant.E // 8):
            m.store_shared(_mark_of(m, variant, group, n), [m.word(0)])


def mark_specials(m: Machine, variant: Variant, seen: list[Number]) -> None:
    """Note which elements of the output get a NaN or an infinity, after `sort_out` and a barrier.

    ``seen`` are the words of `mhakit.backends.cuda.tiles.scores.seen_words`.
    """
    product = product_of(variant)

    # loops of the device: unrolled, they would need more registers than there are
    def of_sources(k: Number, state: State) -> State:
        flags = [product.flags(m, word, k) for word in seen]

        def of_columns(pair: Number, state: State) -> State:
            kinds = product.values(m, variant.kinds, k, pair)
            for group in range(variant.groups):
                for half in (0, 1):
                    counts = m.multiply(flags[group], kinds[half], [m.float32(0.0)] * 4)
                    place = _mark_of(m, variant, group, 2 * pair + half)
                    mark = m.load_word(place)
                    for i, count in enumerate(counts):
                        mark = mark | (_kinds_in(m, m.word(m.int32(count * 16.0))) << (8 * i))
                    m.store_shared(place, [mark])
            return state

        return m.loop(m.int32(0), m.int32(variant.E // 16), state, of_columns)

    m.loop(m.int32(0), m.int32(variant.sources // product.depth), [], of_sources)


def add_specials(
    m: Machine, variant: Variant, kinds: Layout, seen: list[Number], k: Number, sums: list[State]
) -> list[State]:
    """Return the sums of 16 targets, and to each the NaN and infinities that it sees.

    They are of sources 16 k + … of a tile that was sorted out, ``seen`` as `seen_words` are. All
    threads have read their kinds when any goes on: the last vote is a barrier.
    """
    product = product_of(variant)
    steps = 16 // product.depth
    flags = [product.flags(m, seen[0], m.int32(i)) for i in range(steps)]
    added: list[State] = []
    for pair in range(variant.held // 16):
        counts = [[m.float32(0.0)] * 4 for _ in (0, 1)]
        for i, flag in enumerate(flags):
            found = product.values(m, kinds, k * steps + i, pair)
            counts = [m.multiply(flag, *both) for both in zip(found, counts, strict=True)]
        some = m.word(0)
        for count in (x for four in counts for x in four):
            some = some | m.word(count != 0.0)

        def add(columns: State, counts: list[State] = counts) -> State:
            marks = [[_kinds_in(m, m.word(m.int32(x * 16.0))) for x in four] for four in counts]
            return [
                [_with(m, *both) for both in zip(*fours, strict=True)]
                for fours in zip(columns, marks, strict=True)
            ]

        # a branch for each pair: all at once would need more registers than there are
        added += m.choose(m.barrier_any(some != 0), sums[2 * pair : 2 * pair + 2], add)
    return added


def add_marked(m: Machine, variant: Variant, sums: list[list[State]]) -> list[list[State]]:
    """Return sums + the NaN and infinities that were noted for each."""
    added: list[list[State]] = []
    for group, columns in enumerate(sums):
        added.append([])
        for n, four in enumerate(columns):
            mark = m.load_word(_mark_of(m, variant, group, n))
            added[group].append([_with(m, x, mark >> (8 * i)) for i, x in enumerate(four)])
    return added


def _mark_of(m: Machine, variant: Variant, group: int, n: Number) -> Number:
    """Return where the marks of four of this thread's sums are, a byte each."""
    row = n + group * (variant.E // 8)
    return (m.thread << 2) + (row * (variant.threads * 4) + variant.marks)


def _kinds_in(m: Machine, count: Number) -> Number:
    """Return a bit each for NaN, +inf and -inf where one was counted."""
    some = [m.word((count & (0xFF << shift)) != 0) for shift in (0, 8, 16)]
    return some[0] | (some[1] << 1) | (some[2] << 2)


def sort_out(m: Machine, variant: Variant, value: Layout, kinds: Layout) -> None:
    """Put 0 for each value that is not finite, and what it counts for into the tile of kinds."""
    exponent, mantissa = _BITS[variant.dtype]
    nan, positive, negative = _COUNTS[variant.dtype]
    sign = exponent + mantissa + 1
    for row, chunk in chunks_of(m, variant, value, variant.sources):
        place = value.place(row, chunk)
        kept, counted = [], []
        for word in m.load_shared(place + value.start):
            clean, kind = m.word(0), m.word(0)
            for shift in _SHIFTS[variant.size]:
                number = (word >> shift) & (2 * sign - 1)
                special = (number & exponent) == exponent
                infinite = m.select(number >= sign, m.word(negative), m.word(positive))
                which = m.select((number & mantissa) == 0, infinite, m.word(nan))
                clean = clean | (m.select(special, m.word(0), number) << shift)
                kind = kind | (m.select(special, which, m.word(0)) << shift)
            kept.append(clean)
            counted.append(kind)
        m.store_shared(place + value.start, kept)
        m.store_shared(place + kinds.start, counted)


def _with(m: Machine, x: Number, mark: Number) -> Number:
    """Add what was noted."""
    for bit, special in ((1, float("nan")), (2, float("inf")), (4, float("-inf"))):
        x = x + m.select((mark & bit) != 0, m.float32(special), m.float32(0.0))
    return x
