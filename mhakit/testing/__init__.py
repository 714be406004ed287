"""What backends and plugins are tested with.

The grid of shapes, the covering array and the error budget hold a backend against the reference;
`check_combination` holds a head combination against the laws that mhakit and its users rely on.
"""

from mhakit.testing.budget import Budget, allowance, assert_within, budget
from mhakit.testing.conformance import LAWS, ConformanceError, check_combination
from mhakit.testing.grid import GRID, TINY_GRID, Sizes, covering_array, draw

__all__ = [
    "GRID",
    "LAWS",
    "TINY_GRID",
    "Budget",
    "ConformanceError",
    "Sizes",
    "allowance",
    "assert_within",
    "budget",
    "check_combination",
    "covering_array",
    "draw",
]
