"""Score modifications by name: what is registered is a factory of the function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ScoreModFactory"]

ScoreModFactory = Callable[..., tuple[Callable[..., Any], tuple[Any, ...]]]
"""``(num_heads, dtype, *options) -> (function, score_args)``, as registered under a name.

The function is ``(score, b, h, t, s, *score_args) -> score``, compiled into the kernel. Options are
what users give as ``score_args``, with defaults where they may be left out. Return one and the
same function from every call, so that it is compiled once, and put what varies, arrays and numbers
of ``dtype``, into ``score_args``.
"""
