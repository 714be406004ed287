"""A caller's scalar function, compiled so that the kernel can inline it."""

from __future__ import annotations

from mhakit.backends.cpu.flags import optimized
from mhakit.backends.user_compiling import UserCompiler

__all__ = ["compiled"]

compiled = UserCompiler(optimized)
