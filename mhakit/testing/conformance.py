"""Hold a head combination against the laws that mhakit and its users rely on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mhakit.errors import MhakitError, ParameterError
from mhakit.plugin_api import HeadCombination, HeadShape
from mhakit.registry import resolve
from mhakit.testing.laws import RULES, Law
from mhakit.testing.trial import Case, Trial, accepts, backend_names

__all__ = ["LAWS", "ConformanceError", "check_combination"]

LAWS: Mapping[str, str] = {name: law.words for name, law in RULES.items()}
"""Each law's name and what it says, in the order in which they are tried."""


class ConformanceError(AssertionError):
    """A combination breaks a law.

    Attributes
    ----------
    law : str
        Which, of `LAWS`.
    """

    def __init__(self, law: str, message: str) -> None:
        super().__init__(message)
        self.law = law


def check_combination(
    combination: str | type[HeadCombination] | HeadCombination,
    *,
    laws: Iterable[str] | None = None,
    shapes: Sequence[HeadShape] | None = None,
    seed: int = 0,
) -> None:
    """Try a combination on random numbers of small sizes, on every backend that runs here.

    Parameters
    ----------
    combination : str, type or HeadCombination
        An installed name, a class, or an object of one where its options matter.
    laws : iterable of str, optional
        The names of the laws to try; all of `LAWS`, which says what they are, if not given.
    shapes : sequence of HeadShape, optional
        The sizes to try, for a combination that takes few (a mask of five heads). If not given,
        2, 3, 4, 6 and 8 heads, M odd and M = H*E, of which those are tried that `validate` takes.
    seed : int
        Where the numbers come from.

    Raises
    ------
    ConformanceError
        If a law is broken: which, by how much, and on the smallest sizes that were found to.
    ParameterError
        If a law has another name, or the combination takes none of the sizes.
    PluginError
        If the combination is not installed.

    Examples
    --------
    >>> from mhakit.testing import LAWS, check_combination
    >>> check_combination("average")
    >>> LAWS["fold"]
    'where fold gives a matrix, concat(Z) @ matrix + bias is what runs'
    >>> from mhakit_builtins.average import Average
    >>> class Forgetful(Average):
    ...     def fold(self, parameters, shape):
    ...         weight, _ = super().fold(parameters, shape)
    ...         return weight, None
    >>> check_combination(Forgetful)
    Traceback (most recent call last):
        ...
    mhakit.testing.conformance.ConformanceError: 'average' (Forgetful) breaks the law 'fold' ...
    """
    strategy = resolve(combination)
    chosen = tuple(LAWS if laws is None else laws)
    for name in chosen:
        if name not in RULES:
            raise ParameterError(f"laws must be of {', '.join(LAWS)}, got {name!r}")
    for name in chosen:
        law = RULES[name]
        cases = list(_cases(strategy, law, shapes))
        if not cases and name != "one_head":
            raise ParameterError(
                f"shapes must be given for {strategy.name!r}, whose validate takes none of those "
                "that are tried; pass shapes=[HeadShape(num_heads, head_width, model_width)]"
            )
        for case in cases:
            for backend in backend_names():
                if _broken(strategy, law, case, backend, seed):
                    raise _smallest(strategy, name, case, backend, seed)


def _cases(
    strategy: HeadCombination, law: Law, shapes: Sequence[HeadShape] | None
) -> Iterator[Case]:
    """Yield the sizes to try a law on, those that the combination takes."""
    if law.heads == (1,):
        yield from (Case(2, 1, 3, 4, M) for M in (7, 4))  # who refuses them keeps the law, too
        return
    for H in law.heads if shapes is None else ():
        E = 3 if H % 2 else 4
        for M in (7, H * E):
            if accepts(strategy, case := Case(2, H, 3, E, M)):
                yield case
                break
    for shape in shapes or ():
        case = Case(2, shape.num_heads, 3, shape.head_width, shape.model_width)
        if accepts(strategy, case):
            yield case


def _broken(strategy: HeadCombination, law: Law, case: Case, backend: str, seed: int) -> str | None:
    """Say what of a law is broken at these sizes, or None."""
    with np.errstate(all="ignore"):
        try:
            if law.heads == (1,) and not accepts(strategy, case):
                return None
            return law.broken(Trial(strategy, case, backend, seed))
        except MhakitError as error:
            return f"it raised {type(error).__name__}: {error}"


def _smallest(
    strategy: HeadCombination, name: str, case: Case, backend: str, seed: int
) -> ConformanceError:
    """Return the error for the smallest sizes at which the law is broken still."""
    law = RULES[name]
    smaller: Case | None = case
    while smaller is not None:
        case = smaller
        smaller = next(
            (c for c in _smaller(strategy, law, case) if _broken(strategy, law, c, backend, seed)),
            None,
        )
    broken = _broken(strategy, law, case, backend, seed)
    return ConformanceError(
        name,
        f"{strategy.name!r} ({type(strategy).__qualname__}) breaks the law {name!r} at {case} on "
        f"backend {backend!r}: {broken}. The law: {law.words}.",
    )


def _smaller(strategy: HeadCombination, law: Law, case: Case) -> Iterator[Case]:
    """Yield sizes that are smaller in one letter, M following H and E where it is their product."""
    least = {"B": 1, "H": min(law.heads), "T": 1, "E": 1, "M": 1}
    for letter, size in case._asdict().items():
        for less in range(least[letter], size):
            one = case._replace(**{letter: less})
            for candidate in (one, one._replace(M=one.H * one.E)):
                if candidate < case and candidate.M <= case.M and accepts(strategy, candidate):
                    yield candidate
