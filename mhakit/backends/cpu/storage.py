"""How numbers are stored in memory, as kernels are told at run time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["BFLOAT16", "BOOL", "FLOAT16", "FLOAT32", "FLOAT64", "kind_of"]

FLOAT32, FLOAT64, FLOAT16, BFLOAT16, BOOL = range(5)
_KINDS = {"float32": FLOAT32, "float64": FLOAT64, "float16": FLOAT16, "bfloat16": BFLOAT16}


@cache
def kind_of(dtype: np.dtype[Any]) -> int:
    """Return how the numbers of a dtype are stored."""
    return _KINDS[dtype.name]
