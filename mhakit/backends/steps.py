"""Scalar arithmetic that every kernel shares: where a target sits and what it sees.

Plain functions of numbers, compiled into whichever kernel calls them.
"""

from __future__ import annotations

from numba import njit

__all__ = ["first_visible", "past_visible"]


@njit(nogil=True)
def first_visible(position, left):
    """Return the first source that a target at ``position`` sees, by the band alone."""
    return max(position - left, 0)


@njit(nogil=True)
def past_visible(position, right, length):
    """Return the source after the last one it sees, by the band and the key length."""
    return max(min(position + right + 1, length), 0)
