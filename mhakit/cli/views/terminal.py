"""A console that takes no word for markup, and how things are counted on it."""

from __future__ import annotations

from rich.console import Console

__all__ = ["counted", "plain_console"]


def plain_console() -> Console:
    """Return a console that never takes a word of the sentence for markup or an emoji."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=False)


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural where it is not one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
