"""What comes of comparing combinations on the heads of one layer, in figures.

It is a probe. The heads stay as they are, trained for the layer's own combination, and only what
comes after them is refitted; how another combination would do when heads are trained for it, this
does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ComparedCombination", "Comparison"]


@dataclass(frozen=True, slots=True, repr=False)
class ComparedCombination:
    """One way of combining on the heads of a layer.

    Parameters
    ----------
    name, reference : str
        The combination and its paper.
    parameters : int or None
        Learned numbers; None where it cannot be built for these sizes.
    flops : float or None
        Operations a word, as its ``cost`` says.
    output_rank : int or None
        How many dimensions the output can span, as its ``cost`` says.
    microseconds : float or None
        Time a word to combine, the best of five runs.
    recovered : float or None
        The share of the variance of the layer's own output that it gives when it is refitted, on
        words that were held out: 1 is all, 0 no more than the mean, less than 0 worse than that.
    recovered_fitted : float or None
        The same on the words it was fitted to. Where that is much more, they were too few.
    fit : str
        ``"least squares"``, ``"gradient steps"``, both, or ``"nothing to fit"``.
    steps : int
        Gradient steps that were taken.
    why_not : str or None
        Why there are no figures.
    """

    name: str
    reference: str
    parameters: int | None = None
    flops: float | None = None
    output_rank: int | None = None
    microseconds: float | None = None
    recovered: float | None = None
    recovered_fitted: float | None = None
    fit: str = ""
    steps: int = 0
    why_not: str | None = None

    def __repr__(self) -> str:
        if self.recovered is None or self.recovered_fitted is None:
            return f"<{self.name}: {self.why_not}>"
        return (
            f"<{self.name}: recovers {self.recovered:.2f} ({self.recovered_fitted:.2f} where "
            f"fitted, by {self.fit}), {self.parameters:,} parameters, rank {self.output_rank}, "
            f"{self.flops:,.0f} FLOPs and {self.microseconds:.2f} µs a word>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name, for JSON.

        Examples
        --------
        >>> ComparedCombination("mine", "a test", why_not="H must be even").to_dict()["why_not"]
        'H must be even'
        """
        return asdict(self)


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Several ways of combining on the heads of one layer, in the order in which they were named.

    Parameters
    ----------
    rows : tuple of ComparedCombination
        One for each; also by iterating, and by ``comparison["average"]``.
    trained_with : str
        The layer's own combination, which its heads belong to.
    fitted_words, chosen_words, held_out_words : int
        How many words the parameters were fitted on, how many chose ridge and last step, and how
        many ``recovered`` was measured on.
    """

    rows: tuple[ComparedCombination, ...]
    trained_with: str
    fitted_words: int
    chosen_words: int
    held_out_words: int

    @property
    def note(self) -> str:
        """What these figures do not say.

        Examples
        --------
        >>> Comparison((), "concat_project", 60, 20, 20).note[:55]
        'A probe: the heads are frozen as they were for concat_p'
        """
        return (
            f"A probe: the heads are frozen as they were for {self.trained_with}, and only the "
            "combination is refitted to the layer's own output. It does not tell how a combination "
            "does when heads are trained for it. "
            f"Fitted on {self.fitted_words} words, ridge and last step chosen on "
            f"{self.chosen_words}, measured on {self.held_out_words} others."
        )

    def __iter__(self) -> Iterator[ComparedCombination]:
        return iter(self.rows)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def __getitem__(self, name: str) -> ComparedCombination:
        """Return the first of that name, or raise KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.rows), self.note])

    def to_dict(self) -> dict[str, Any]:
        """Return rows, words and note by name, for JSON.

        Examples
        --------
        >>> list(Comparison((), "concat_project", 60, 20, 20).to_dict())[:2]
        ['note', 'trained_with']
        """
        return {
            "note": self.note,
            "trained_with": self.trained_with,
            "fitted_words": self.fitted_words,
            "chosen_words": self.chosen_words,
            "held_out_words": self.held_out_words,
            "combinations": [row.to_dict() for row in self.rows],
        }
