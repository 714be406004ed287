"""The shapes that a backend is tested on, and the rows of keywords that meet in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations as pairs_of
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRID", "TINY_GRID", "Sizes", "covering_array", "draw"]

Array = NDArray[Any]


class Sizes(NamedTuple):
    """One shape of the grid, in the letters of `mhakit.problem`."""

    B: int
    H: int
    G: int
    T: int
    S: int
    D: int
    E: int

    def __str__(self) -> str:
        return "-".join(f"{letter}{size}" for letter, size in self._asdict().items())


GRID: Mapping[str, Sizes] = {
    "all ones": Sizes(1, 1, 1, 1, 1, 1, 1),
    "no two sizes equal": Sizes(2, 6, 3, 5, 7, 4, 9),
    "more targets than sources": Sizes(1, 2, 2, 70, 9, 8, 8),
    "more sources than targets": Sizes(2, 2, 1, 3, 200, 16, 16),
    "one key/value head": Sizes(1, 8, 1, 17, 33, 16, 16),
    "a key/value head for each head": Sizes(1, 5, 5, 33, 65, 12, 12),
    "just past a tile": Sizes(1, 1, 1, 65, 65, 3, 3),
    "just short of a tile": Sizes(1, 1, 1, 63, 127, 16, 5),
    "one target, many sources": Sizes(1, 4, 2, 1, 1300, 64, 64),
    "few targets, odd widths": Sizes(2, 6, 2, 4, 517, 37, 21),
    "wide heads": Sizes(1, 1, 1, 20, 40, 256, 80),
    "wide values": Sizes(1, 2, 1, 10, 70, 1, 128),
    "several tiles of several blocks": Sizes(1, 2, 2, 150, 270, 80, 64),
}
"""Shapes by what is special about them."""

TINY_GRID: Mapping[str, Sizes] = {
    "all ones": Sizes(1, 1, 1, 1, 1, 1, 1),
    "no two sizes equal": Sizes(2, 6, 3, 5, 7, 4, 9),
    "more targets than sources": Sizes(1, 2, 2, 7, 3, 2, 2),
    "more sources than targets": Sizes(2, 2, 1, 3, 20, 4, 4),
    "a key/value head for each head": Sizes(1, 3, 3, 3, 5, 4, 4),
    "wide heads": Sizes(1, 1, 1, 2, 3, 21, 3),
    "wide values": Sizes(1, 2, 1, 3, 4, 1, 37),
    "several tiles of several blocks": Sizes(1, 2, 2, 9, 25, 5, 3),
}
"""The same at sizes for a simulator, where a block of threads is a handful of Python threads."""


def draw(sizes: Sizes, dtype: Any, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return random query, key and value of a shape.

    Examples
    --------
    >>> query, key, value = draw(GRID["no two sizes equal"], np.float32)
    >>> query.shape, key.shape, value.shape
    ((2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 9))
    """
    B, H, G, T, S, D, E = sizes
    rng = np.random.default_rng(seed)
    shapes = ((B, H, T, D), (B, G, S, D), (B, G, S, E))
    query, key, value = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return query, key, value


def covering_array(factors: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Return rows in which every pair of values of any two factors stands together once or more.

    Examples
    --------
    >>> rows = covering_array({"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1], "d": [0, 1]})
    >>> {(row["c"], row["d"]) for row in rows} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    True
    >>> len(rows) < 3 * 3 * 2 * 2
    True
    """
    names = list(factors)
    sizes = [len(factors[name]) for name in names]
    missing = {
        ((i, x), (j, y))
        for i, j in pairs_of(range(len(names)), 2)
        for x, y in product(range(sizes[i]), range(sizes[j]))
    }
    rng = np.random.default_rng(seed)
    rows = []
    while missing:
        row = dict(min(missing))
        for i in map(int, rng.permutation(len(names))):
            if i not in row:
                gains = [_covered(row, i, x, missing) for x in range(sizes[i])]
                row[i] = int(np.argmax(np.array(gains) + rng.random(sizes[i]) * 0.5))
        missing -= set(pairs_of(sorted(row.items()), 2))
        rows.append({names[i]: factors[names[i]][x] for i, x in sorted(row.items())})
    return rows


def _covered(row: dict[int, int], i: int, x: int, missing: set[Any]) -> int:
    """Count the missing pairs that value x of factor i would complete."""
    return sum(tuple(sorted([(i, x), (j, y)])) in missing for j, y in row.items())
