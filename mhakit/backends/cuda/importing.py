"""Numba's CUDA target, imported: the first import of this package goes through here."""

from __future__ import annotations

import numpy as np

__all__ = ["import_numba_cuda"]


def import_numba_cuda() -> None:
    """Import numba-cuda with all that it registers.

    It names ``np.row_stack``, which NumPy 2.5 has no more: the name stands while it is imported.
    """
    lacking = "row_stack" not in vars(np)
    if lacking:
        setattr(np, "row_stack", np.vstack)  # noqa: B010
    try:
        import numba.cuda
        import numba.cuda.np.arrayobj  # noqa: F401
    finally:
        if lacking:
            delattr(np, "row_stack")


import_numba_cuda()
