"""Scalar arithmetic that every kernel shares: where a target sits and what it sees.

Plain functions of numbers, which each backend compiles into its kernels.
"""

from __future__ import annotations

__all__ = ["first_visible", "past_visible"]


def first_visible(position, left):
    """Return the first source that a target at ``position`` sees, by the band alone."""
    first = position - left
    return first if first > 0 else 0


def past_visible(position, right, length):
    """Return the source after the last one it sees, by the band and the key length."""
    past = position + right + 1
    past = past if past < length else length
    return past if past > 0 else 0
