"""What a caller's scalar function returns, asked before a kernel is made of it.

Kernels would take a bool or cut off a complex number, and the simulator, which types nothing,
makes NaN of None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numba
import numpy as np
from numba import types
from numba.core.errors import NumbaError
from numba.np.numpy_support import from_dtype

from mhakit.backends.cuda.storage import stored
from mhakit.backends.user_functions import (
    body_of,
    does_not_compile,
    refuse_raising,
    returns_no_number,
)
from mhakit.device import DeviceArray
from mhakit.errors import CompileError
from mhakit.problem import Problem

__all__ = ["refuse_other_than_a_number"]

_compiled: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()


def refuse_other_than_a_number(problem: Problem) -> None:
    """Raise CompileError unless ``score_mod`` compiles and returns one real number."""
    if problem.score_mod is None:
        return
    body = body_of(problem.score_mod)
    try:
        function = _compiled.get(body)
        if function is None:
            refuse_raising(body)
            function = _compiled[body] = numba.njit(body)
        arguments = [_type_of(argument) for argument in problem.score_args]
        signature = (from_dtype(problem.real), *[types.int64] * 4, *arguments)
        function.compile(signature)
    except (NumbaError, ValueError, TypeError) as error:
        if isinstance(error, CompileError):
            raise
        raise does_not_compile(body, error) from error
    result = function.overloads[signature].signature.return_type
    if not isinstance(result, (types.Float, types.Integer)):
        raise returns_no_number(body, result)


def _type_of(argument: Any) -> Any:
    """Return the type of one of score_args; of an array, wherever it lies, of any strides."""
    if isinstance(argument, tuple):
        return types.BaseTuple.from_types([_type_of(part) for part in argument])
    if isinstance(argument, (np.ndarray, DeviceArray)) and argument.ndim:
        return types.Array(from_dtype(stored(argument.dtype)), argument.ndim, "A")
    return numba.typeof(argument)
