"""The only place that knows vector registers: what is done to tiles, as intrinsics.

A tile lies in memory as rows of ``lanes`` numbers, aligned to a register; one lane is one
target. Addresses and strides are integers in bytes, so that one specialisation a dtype serves
every layout. ``real`` is any number of the computation dtype: only its type matters.
"""

from mhakit.backends.cpu.simd.along import (
    add_weighted_rows,
    all_finite,
    dot_rows,
    line_top,
    line_weights,
)
from mhakit.backends.cpu.simd.columns import (
    column_bases,
    column_tops,
    column_weights,
    column_weights_scaled,
    exp2,
    tanh,
)
from mhakit.backends.cpu.simd.emitter import LEAST_BYTES, VECTOR_BYTES
from mhakit.backends.cpu.simd.lines import row_from_line, rows_to_lines, rows_to_panels
from mhakit.backends.cpu.simd.product import (
    COLUMN,
    accumulate,
    accumulate_visible,
    extend,
    multiply,
)
from mhakit.backends.cpu.simd.turning import to_columns, to_rows

__all__ = [
    "COLUMN",
    "LEAST_BYTES",
    "VECTOR_BYTES",
    "accumulate",
    "accumulate_visible",
    "add_weighted_rows",
    "all_finite",
    "column_bases",
    "column_tops",
    "column_weights",
    "column_weights_scaled",
    "dot_rows",
    "exp2",
    "extend",
    "line_top",
    "line_weights",
    "multiply",
    "row_from_line",
    "rows_to_lines",
    "rows_to_panels",
    "tanh",
    "to_columns",
    "to_rows",
]
