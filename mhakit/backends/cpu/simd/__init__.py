"""The only place that knows vector registers: what is done to tiles, as intrinsics.

A tile lies in memory as rows of ``lanes`` numbers, aligned to a register; one lane is one
target. Addresses and strides are integers in bytes, so that one specialisation a dtype serves
every layout. ``real`` is any number of the computation dtype: only its type matters.
"""

from mhakit.backends.cpu.simd.along import (
    add_weighted_rows,
    dot_rows,
    line_top,
    line_weights,
)
from mhakit.backends.cpu.simd.columns import column_tops, column_weights, exp2, tanh
from mhakit.backends.cpu.simd.emitter import VECTOR_BYTES, align
from mhakit.backends.cpu.simd.product import accumulate, accumulate_visible, multiply
from mhakit.backends.cpu.simd.transposing import (
    bfloat16_to_columns,
    bfloat16_to_rows,
    bool_to_columns,
    float16_to_columns,
    float16_to_rows,
    native_to_columns,
    native_to_rows,
    widen_bfloat16,
    widen_float16,
)

__all__ = [
    "VECTOR_BYTES",
    "accumulate",
    "accumulate_visible",
    "add_weighted_rows",
    "align",
    "bfloat16_to_columns",
    "bfloat16_to_rows",
    "bool_to_columns",
    "column_tops",
    "column_weights",
    "dot_rows",
    "exp2",
    "float16_to_columns",
    "float16_to_rows",
    "line_top",
    "line_weights",
    "multiply",
    "native_to_columns",
    "native_to_rows",
    "tanh",
    "widen_bfloat16",
    "widen_float16",
]
