"""A caller's scalar function, compiled by a decorator of Numba, judged by what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numba
from numba import types
from numba.core.errors import NumbaError
from numba.np.numpy_support import from_dtype

from mhakit.backends.user_functions import (
    body_of,
    does_not_compile,
    refuse_raising,
    returns_no_number,
)
from mhakit.errors import CompileError
from mhakit.problem import Problem

__all__ = ["UserCompiler"]


class UserCompiler:
    """Compiles each function once for a decorator, for arguments of the types it is told."""

    def __init__(
        self,
        decorator: Callable[[Callable[..., Any]], Any],
        type_of: Callable[[Any], types.Type] = numba.typeof,
    ) -> None:
        self._decorator, self._type_of = decorator, type_of
        self._compiled: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()

    def __call__(self, problem: Problem) -> Any:
        """Return the problem's ``score_mod`` compiled for its dtype, or None where there is none.

        Raises CompileError unless it compiles and returns one real number.
        """
        if problem.score_mod is None:
            return None
        body = body_of(problem.score_mod)
        try:
            function = self._compiled.get(body)
            if function is None:
                refuse_raising(body)
                function = self._compiled[body] = self._decorator(body)
            arguments = [self._type_of(argument) for argument in problem.score_args]
            signature = (from_dtype(problem.real), *[types.int64] * 4, *arguments)
            function.compile(signature)
        except (NumbaError, ValueError, TypeError) as error:
            if isinstance(error, CompileError):
                raise
            raise does_not_compile(body, error) from error
        result = function.overloads[signature].signature.return_type
        if not isinstance(result, (types.Float, types.Integer)):
            raise returns_no_number(body, result)
        return function
