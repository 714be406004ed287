"""The weighted values of a block of sources, added to sums; no hidden value is ever seen in one."""

from __future__ import annotations

from mhakit.backends.cpu.flags import inlined
from mhakit.backends.cpu.simd import accumulate, accumulate_visible, all_finite

__all__ = ["add_values", "leaks"]


@inlined
def leaks(real, row, row_stride, across, rows, E, item):
    """Whether a weight of -0.0 may not hide these values: a finite one times it is no more than 0.

    Values that are no neighbours are not looked at.
    """
    return across != item or not all_finite(real, row, row_stride, rows, E)


@inlined
def add_values(
    real, visible, row, row_stride, across, rows, E, weights, sums, step, width, carry
):  # fmt: skip
    """sums[e, lane] = carry[lane] * itself + the sum over rows of weights[row, lane] * value[e].

    Addresses and bytes as in `multiply`; ``visible`` leaves out what a weight of -0.0 hides.
    """
    if visible:
        accumulate_visible(
            real, row, across, row_stride, weights, sums, step, width, E, rows, carry
        )
    else:
        accumulate(real, row, across, row_stride, weights, sums, step, width, E, rows, carry)
