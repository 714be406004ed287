"""How fast mhakit is beside its peers: the rows, the peers, the checks, the clock, the table.

`mhakit bench` prints what is measured here; the benchmarks of asv draw on the same rows.
Nothing is imported before it is used: a peer that is not installed is said to be missing.
"""

from mhakit.bench.measuring import Result, headline, measure, measure_all
from mhakit.bench.rows import ROWS, Goal, Row, chosen
from mhakit.bench.timing import FULL, QUICK, Effort

__all__ = [
    "FULL",
    "QUICK",
    "ROWS",
    "Effort",
    "Goal",
    "Result",
    "Row",
    "chosen",
    "headline",
    "measure",
    "measure_all",
]
