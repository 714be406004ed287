"""A caller's scalar function, compiled so that the kernel can inline it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numba
from numba import types
from numba.core.errors import NumbaError

from mhakit.backends.cpu.flags import optimized
from mhakit.backends.user_functions import (
    body_of,
    does_not_compile,
    refuse_raising,
    returns_no_number,
)
from mhakit.errors import CompileError
from mhakit.problem import Problem

__all__ = ["compiled"]

_compiled: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()


def compiled(problem: Problem) -> Any:
    """Return the problem's ``score_mod`` compiled for its dtype, or None where there is none."""
    score_mod = problem.score_mod
    if score_mod is None:
        return None
    body = body_of(score_mod)
    try:
        function = _compiled.get(body)
        if function is None:
            refuse_raising(body)
            function = _compiled[body] = optimized(body)
        arguments = [numba.typeof(argument) for argument in problem.score_args]
        signature = (numba.typeof(problem.real.type(0)), *[types.int64] * 4, *arguments)
        function.compile(signature)
    except (NumbaError, ValueError, TypeError) as error:
        if isinstance(error, CompileError):
            raise
        raise does_not_compile(body, error) from error
    result = function.overloads[signature].signature.return_type
    if not isinstance(result, (types.Float, types.Integer)):
        raise returns_no_number(body, result)
    return function
