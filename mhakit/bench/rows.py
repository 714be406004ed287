"""The table as data: every row, what it is held against, and what it must reach.

A row's shape reads B,H/G,T,S,D where H and G differ, and B,H,T,S,D where they do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from mhakit.errors import ParameterError
from mhakit.testing import Sizes

__all__ = [
    "PEERS",
    "ROWS",
    "Attention",
    "Combination",
    "Decoding",
    "Goal",
    "Layer",
    "Prefill",
    "Row",
    "chosen",
    "lines",
    "wanted",
]

PEERS = ("torch", "onnxruntime", "numpy")
"""Those who compute the same; the headline is the geometric mean of the ratios to them."""


class Goal(NamedTuple):
    """Whom a row is held against, and what it must reach; None is for information."""

    against: str
    target: float | None = None
    stretch: float | None = None
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Attention:
    """A call of `mhakit.attention`."""

    sizes: Sizes
    dtype: str = "float32"
    causal: bool = False
    window: tuple[int | None, int | None] | None = None
    padded: bool = False
    """Whether ``key_lengths`` go from S/8 to S over the batch."""
    changed: Literal["mask", "bias", "alibi"] | None = None

    def __str__(self) -> str:
        B, H, G, T, S, D, _ = self.sizes
        return f"{B},{H if H == G else f'{H}/{G}'},{T},{S},{D}"


@dataclass(frozen=True, slots=True)
class Layer:
    """A call of a `mhakit.MultiHeadAttention` of M = 768 and H = 12."""

    B: int
    T: int
    weights: bool
    """Whether the weights of every head are returned, too."""
    M: int = 768
    H: int = 12

    def __str__(self) -> str:
        return f"{self.B},{self.T}"


@dataclass(frozen=True, slots=True)
class Combination:
    """A call of `mhakit.combine`."""

    name: str
    H: int = 12
    E: int = 64
    T: int = 512

    def __str__(self) -> str:
        return f"{self.name} {self.H},{self.E},{self.T}"


@dataclass(frozen=True, slots=True)
class Prefill:
    """The memory of `mhakit.attention` at two T = S."""

    dtype: str = "float32"
    causal: bool = False
    T: tuple[int, int] = (1024, 4096)

    def __str__(self) -> str:
        return f"{self.dtype}{' causal' * self.causal} T {self.T[0]} to {self.T[1]}"


@dataclass(frozen=True, slots=True)
class Decoding:
    """The memory of `mhakit.attention` of one target at two S."""

    dtype: str = "float32"
    S: tuple[int, int] = (4096, 16384)

    def __str__(self) -> str:
        return f"{self.dtype} S {self.S[0]} to {self.S[1]}"


Work = Attention | Layer | Combination | Prefill | Decoding


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work and all it is held against."""

    family: str
    work: Work
    goals: tuple[Goal, ...]

    @property
    def name(self) -> str:
        """The family and the shape: how `mhakit bench --only` and asv call it."""
        return f"{self.family} {self.work}"


def _sizes(B: int, H: int, T: int, S: int, D: int, G: int | None = None) -> Sizes:
    return Sizes(B, H, H if G is None else G, T, S, D, D)


def _dense() -> Iterator[Row]:
    yield Row(
        "dense",
        Attention(_sizes(1, 12, 2048, 2048, 64)),
        (Goal("torch", 1.2), Goal("onnxruntime", 1.1), Goal("matmul")),
    )
    yield Row(
        "dense",
        Attention(_sizes(1, 8, 4096, 4096, 128)),
        (Goal("torch", 1.15), Goal("onnxruntime", 1.05), Goal("matmul", 1.0)),
    )
    for B, T in ((8, 128), (1, 512)):
        goals = (Goal("torch", 1.3), Goal("onnxruntime"))
        yield Row("dense", Attention(_sizes(B, 12, T, T, 64)), goals)


def _partly_hidden() -> Iterator[Row]:
    for H, T, D in ((12, 2048, 64), (8, 4096, 128)):
        goals = (Goal("torch", 1.35, 1.5), Goal("onnxruntime"))
        yield Row("causal", Attention(_sizes(1, H, T, T, D), causal=True), goals)
    long = _sizes(1, 4, 8192, 8192, 64)
    faster = (Goal("torch", 10.0),)
    yield Row("window 128,128", Attention(long, window=(128, 128)), faster)
    yield Row("window 256,0 causal", Attention(long, window=(256, 0), causal=True), faster)
    yield Row("padded", Attention(_sizes(8, 12, 512, 512, 64), padded=True), (Goal("torch", 1.8),))


def _changed() -> Iterator[Row]:
    sizes = _sizes(1, 12, 1024, 1024, 64)
    for family, changed in (
        ("random mask", "mask"),
        ("additive bias", "bias"),
        ("score_mod ALiBi", "alibi"),
    ):
        yield Row(family, Attention(sizes, changed=changed), (Goal("torch", 1.1),))  # type: ignore[arg-type]


def _dtypes() -> Iterator[Row]:
    sizes = _sizes(1, 12, 1024, 1024, 64)
    for dtype, target in (("float64", 1.4), ("float16", 1.6), ("bfloat16", 1.2)):
        for causal in (False, True):
            work = Attention(sizes, dtype, causal=causal)
            yield Row(f"{dtype} {'causal' if causal else 'dense'}", work, (Goal("torch", target),))


def _grouped() -> Iterator[Row]:
    work = Attention(_sizes(1, 32, 2048, 2048, 128, G=8), causal=True)
    yield Row("grouped causal", work, (Goal("torch", 1.4),))
    for sizes, target, stretch in (
        (_sizes(1, 32, 1, 8192, 128, G=8), 5.0, 7.0),
        (_sizes(1, 32, 1, 4096, 128), 2.0, 2.5),
        (_sizes(8, 32, 1, 2048, 128, G=8), 2.7, 3.5),
    ):
        goals = (Goal("torch", target, stretch), Goal("read", 0.5, 0.7))
        yield Row("decoding", Attention(sizes), goals)


def _odd_and_tiny() -> Iterator[Row]:
    shapes = [_sizes(1, 12, 333, 1000, D) for D in (40, 72, 80, 96, 256)]
    shapes += [_sizes(1, 12, T, S, 64) for T in (17, 333, 1000) for S in (17, 333, 1000)]
    for sizes in shapes:
        yield Row("odd", Attention(sizes), (Goal("torch", 1.1),))
    yield Row("tiny", Attention(_sizes(1, 8, 4, 4, 16)), (Goal("torch", 1.1, 1.5),))
    yield Row("tiny", Attention(_sizes(1, 12, 16, 16, 32)), (Goal("torch", 1.1, 1.5),))


def _around_attention() -> Iterator[Row]:
    for weights in (False, True):
        family = "layer and weights" if weights else "layer"
        for B, T in ((1, 512), (8, 128), (1, 2048)):
            yield Row(family, Layer(B, T, weights), (Goal("torch", 1.15),))
    for name in ("average", "concat_project"):
        yield Row("combine", Combination(name), (Goal("numpy", 1.0),))


def _memory() -> Iterator[Row]:
    # what the interpreter itself holds of a call moves by some hundred bytes, whatever T
    still = (Goal("bytes a target", 1.0, at_most=True),)
    yield Row("memory", Prefill(), still)
    yield Row("memory", Prefill(causal=True), still)
    yield Row("memory", Prefill("float16"), still)
    # a segment is at least one block of sources
    yield Row("memory of decoding", Decoding(), (Goal("sources a kept row", 64.0),))


ROWS: tuple[Row, ...] = (
    *_dense(),
    *_partly_hidden(),
    *_changed(),
    *_dtypes(),
    *_grouped(),
    *_odd_and_tiny(),
    *_around_attention(),
    *_memory(),
)


def chosen(patterns: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows whose name holds one of the patterns, all where there is none.

    A pattern is part of a name, or a whole name with ``*`` and ``?`` in it.

    Examples
    --------
    >>> [row.name for row in chosen(["tiny"])]
    ['tiny 1,8,4,4,16', 'tiny 1,12,16,16,32']
    >>> [row.name for row in chosen(["*,4,8192,*"])] == [row.name for row in chosen(["window"])]
    True
    """
    if not patterns:
        return ROWS
    found = []
    for pattern in patterns:
        fitting = [row for row in ROWS if _fits(row.name, pattern)]
        if not fitting:
            names = list(dict.fromkeys(n for row in ROWS for n in (row.family, row.name)))
            near = get_close_matches(pattern, names, n=1, cutoff=0.0)[0]
            raise ParameterError(
                f"only must be part of a row's name, got {pattern!r}; "
                f"the nearest is {near!r}, and --list shows all"
            )
        found += fitting
    return tuple(row for row in ROWS if row in found)


def _fits(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return pattern in name or fnmatchcase(name, pattern)


def wanted(target: float | None, stretch: float | None, at_most: bool) -> str:
    """Return a target as the table writes it.

    Examples
    --------
    >>> wanted(5.0, 7.0, False), wanted(1.0, None, True), wanted(None, None, False)
    ('5 (7)', '<= 1', '')
    """
    if target is None:
        return ""
    return f"{'<= ' * at_most}{target:g}{'' if stretch is None else f' ({stretch:g})'}"


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for each row: its name, whom it is held against, what it must reach."""
    for row in rows:
        goals = ", ".join(
            f"{goal.against} {wanted(goal.target, goal.stretch, goal.at_most)}".rstrip()
            for goal in row.goals
        )
        yield f"{row.name:46}{goals}"
