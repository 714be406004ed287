"""The only place that knows vector registers: products and columns of softmax, as intrinsics.

A tile lies in memory as rows of ``lanes`` numbers, aligned to a register; one lane is one
target. Addresses and strides are integers in bytes, so that one specialisation a dtype serves
every layout. ``real`` is any number of the computation dtype: only its type matters.
"""

from mhakit.backends.cpu.simd.columns import column_tops, column_weights, exp2, tanh
from mhakit.backends.cpu.simd.emitter import VECTOR_BYTES, align
from mhakit.backends.cpu.simd.product import accumulate, accumulate_visible, multiply

__all__ = [
    "VECTOR_BYTES",
    "accumulate",
    "accumulate_visible",
    "align",
    "column_tops",
    "column_weights",
    "exp2",
    "multiply",
    "tanh",
]
