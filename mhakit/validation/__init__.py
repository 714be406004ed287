"""The caller's arrays and keywords, checked once: nothing behind here checks again.

Every ShapeError of attention is raised here.
"""

from mhakit.validation.arrays import (
    as_array,
    as_float_array,
    as_indices,
    as_output,
    empty,
    require_layout,
    require_same_dtype,
)
from mhakit.validation.attention import as_problem, as_sinks

__all__ = [
    "as_array",
    "as_float_array",
    "as_indices",
    "as_output",
    "as_problem",
    "as_sinks",
    "empty",
    "require_layout",
    "require_same_dtype",
]
