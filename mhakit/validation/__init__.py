"""The caller's arrays and keywords, checked once: nothing behind here checks again.

Every ShapeError of attention is raised here.
"""

from mhakit.validation.arrays import (
    as_array,
    as_dtype,
    as_float_array,
    as_indices,
    as_output,
    as_size,
    empty,
    out_of_memory,
    require_layout,
    require_one_place,
    require_same_dtype,
)
from mhakit.validation.attention import as_problem, as_sinks
from mhakit.validation.mixing import MixedCall, as_mixed_call

__all__ = [
    "MixedCall",
    "as_array",
    "as_dtype",
    "as_float_array",
    "as_indices",
    "as_mixed_call",
    "as_output",
    "as_problem",
    "as_sinks",
    "as_size",
    "empty",
    "out_of_memory",
    "require_layout",
    "require_one_place",
    "require_same_dtype",
]
