"""What a caller's scalar function may do, and the errors that say so, whoever compiles it."""

from __future__ import annotations

import dis
from collections.abc import Callable
from typing import Any

from mhakit.errors import CompileError

__all__ = ["MAY", "body_of", "does_not_compile", "name_of", "refuse_raising", "returns_no_number"]

MAY = (
    "it may use arithmetic, comparisons, if, math.* and np.* of single numbers, and index arrays "
    "given in score_args; it must return one real number and raise nothing"
)


def body_of(score_mod: Callable[..., Any]) -> Callable[..., Any]:
    """Return the plain function: what was compiled elsewhere is compiled anew."""
    body: Callable[..., Any] = getattr(score_mod, "py_func", score_mod)
    return body


def name_of(score_mod: Callable[..., Any]) -> str:
    """Return the name that errors call it by."""
    body = body_of(score_mod)
    return getattr(body, "__qualname__", repr(body))


def refuse_raising(score_mod: Callable[..., Any]) -> None:
    """Raise CompileError where the function has a raise statement, which a kernel cannot follow."""
    try:
        steps = list(dis.get_instructions(body_of(score_mod)))
    except TypeError as error:  # nothing written in Python
        raise does_not_compile(score_mod, error) from error
    if any(step.opname == "RAISE_VARARGS" for step in steps):
        raise CompileError(
            f"score_mod {name_of(score_mod)} must raise nothing, got a raise statement; {MAY}"
        )


def does_not_compile(score_mod: Callable[..., Any], error: Exception) -> CompileError:
    """Return the error for a function that Numba refused."""
    return CompileError(
        f"score_mod {name_of(score_mod)} must be a scalar function (score, b, h, t, s, *score_args)"
        f" -> score that compiles, got {_reason(error)}; {MAY}"
    )


def returns_no_number(score_mod: Callable[..., Any], result: Any) -> CompileError:
    """Return the error for a function whose result has another type than a real number's."""
    return CompileError(
        f"score_mod {name_of(score_mod)} must return one real number, got {result}; {MAY}"
    )


def _reason(error: Exception) -> str:
    """Return the first line of Numba's message that tells something."""
    passes_by = ("Failed in", "During:", "No implementation", "There are")
    for line in str(error).splitlines():
        text = line.strip()
        if text and not text.startswith(passes_by):
            return text
    return type(error).__name__
