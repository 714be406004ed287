"""A caller's scalar function, compiled so that the kernel can inline it."""

from __future__ import annotations

import dis
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numba
from numba import types
from numba.core.errors import NumbaError

from mhakit.backends.cpu.flags import optimized
from mhakit.errors import CompileError
from mhakit.problem import Problem

__all__ = ["compiled"]

_compiled: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()

MAY = (
    "it may use arithmetic, comparisons, if, math.* and np.* of single numbers, and index arrays "
    "given in score_args; it must return one real number and raise nothing"
)


def compiled(problem: Problem) -> Any:
    """Return the problem's ``score_mod`` compiled for its dtype, or None where there is none."""
    score_mod = problem.score_mod
    if score_mod is None:
        return None
    body = getattr(score_mod, "py_func", score_mod)  # what was compiled elsewhere is compiled anew
    name = getattr(body, "__qualname__", repr(body))
    try:
        function = _compiled.get(body)
        if function is None:
            if any(code.opname == "RAISE_VARARGS" for code in dis.get_instructions(body)):
                raise CompileError(
                    f"score_mod {name} must raise nothing, got a raise statement; {MAY}"
                )
            function = _compiled[body] = optimized(body)
        arguments = [numba.typeof(argument) for argument in problem.score_args]
        signature = (numba.typeof(problem.real.type(0)), *[types.int64] * 4, *arguments)
        function.compile(signature)
    except (NumbaError, ValueError, TypeError) as error:
        if isinstance(error, CompileError):
            raise
        raise CompileError(
            f"score_mod {name} must be a scalar function (score, b, h, t, s, *score_args) -> score "
            f"that compiles, got {_reason(error)}; {MAY}"
        ) from error
    result = function.overloads[signature].signature.return_type
    if not isinstance(result, (types.Float, types.Integer)):
        raise CompileError(f"score_mod {name} must return one real number, got {result}; {MAY}")
    return function


def _reason(error: Exception) -> str:
    """Return the first line of Numba's message that tells something."""
    passes_by = ("Failed in nopython", "During:", "No implementation", "There are")
    for line in str(error).splitlines():
        text = line.strip()
        if text and not text.startswith(passes_by):
            return text
    return type(error).__name__
