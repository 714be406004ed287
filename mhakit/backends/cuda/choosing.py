"""Which kernel of attention takes a problem, and why: asked by whoever runs it or explains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mhakit.backends.cuda import attention, decoding, presence, tiled_attention
from mhakit.problem import Problem

__all__ = ["Choice", "attend", "choose", "describe"]


class Choice(NamedTuple):
    """A kernel of attention, and the reason for it."""

    attend: Callable[..., Any]
    """(problem, out, *, wants_lse) -> lse or None"""
    describe: Callable[[Problem], dict[str, Any]]
    why: str


def choose(problem: Problem, out: Any = None) -> Choice:
    """Return the kernel that takes a problem: few targets are decoded, plain blocks take the rest.

    An ``out`` on the device whose rows the tiles cannot write goes to plain blocks, too.
    """
    capability = presence.capability_of(problem.query)
    if capability is None:
        return _plain("Numba's simulator has no tensor cores")
    undecoded = decoding.refusal(problem, capability, out)
    if undecoded is None:
        return Choice(decoding.attend, decoding.describe, decoding.reason(problem))
    reason = tiled_attention.refusal(problem, capability, out)
    if reason is None:
        return Choice(
            tiled_attention.attend,
            tiled_attention.describe,
            f"{undecoded}; {tiled_attention.reason(problem)}",
        )
    return _plain(reason)


def _plain(reason: str) -> Choice:
    return Choice(
        attention.attend,
        attention.describe,
        f"{reason}; plain blocks take every width, dtype and keyword",
    )


def attend(problem: Problem, out: Any, *, wants_lse: bool = True) -> Any:
    """Write attention's output, (B, H, T, E), to ``out``; return lse, (B, H, T), if wanted."""
    return choose(problem, out).attend(problem, out, wants_lse=wants_lse)


def describe(problem: Problem) -> dict[str, Any]:
    """Return what `attend` would do with this problem, for ``mhakit.explain``."""
    choice = choose(problem)
    return {**choice.describe(problem), "why": choice.why}
