"""Which kernel of attention takes a problem, and why: asked by whoever runs it or explains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mhakit.backends.cuda import attention
from mhakit.problem import Problem

__all__ = ["Choice", "attend", "choose", "describe"]


class Choice(NamedTuple):
    """A kernel of attention, and the reason for it."""

    attend: Callable[..., Any]
    """(problem, out, *, wants_lse) -> lse or None"""
    describe: Callable[[Problem], dict[str, Any]]
    why: str


def choose(problem: Problem) -> Choice:
    """Return the kernel that takes a problem: plain blocks, the one there is, take every one."""
    return Choice(
        attention.attend, attention.describe, "plain blocks take every width, dtype and keyword"
    )


def attend(problem: Problem, out: Any, *, wants_lse: bool = True) -> Any:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), if wanted."""
    return choose(problem).attend(problem, out, wants_lse=wants_lse)


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, for ``mhakit.explain``."""
    choice = choose(problem)
    return {**choice.describe(problem), "why": choice.why}
