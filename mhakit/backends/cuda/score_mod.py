"""What a caller's scalar function returns, asked before a kernel is made of it.

Kernels would take a bool or cut off a complex number, and the simulator, which types nothing,
makes NaN of None.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from mhakit.backends.cuda.storage import stored
from mhakit.backends.user_compiling import UserCompiler
from mhakit.device import DeviceArray

__all__ = ["refuse_other_than_a_number"]


def _type_of(argument: Any) -> Any:
    """Return the type of one of score_args; of an array, wherever it lies, of any strides."""
    if isinstance(argument, tuple):
        return types.BaseTuple.from_types([_type_of(part) for part in argument])
    if isinstance(argument, (np.ndarray, DeviceArray)) and argument.ndim:
        return types.Array(from_dtype(stored(argument.dtype)), argument.ndim, "A")
    return numba.typeof(argument)


refuse_other_than_a_number = UserCompiler(numba.njit, _type_of)
