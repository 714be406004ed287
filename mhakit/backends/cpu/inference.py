"""How the types in a kernel are found: each question about an operator is asked once.

Numba asks all that is registered for an operator, NumPy's loops among it, wherever it stands:
1,450 times in attention's kernel, of 130 different questions.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NopythonTypeInference

__all__ = ["Inference", "forget"]

_found: dict[tuple[Any, ...], Any] = {}
"""The signature of an operator or an intrinsic, by what it is and what it is given. Numba compiles
in one thread at a time."""


def forget() -> None:
    """Keep nothing: what is registered may change between two kernels."""
    _found.clear()


class _Remembering:
    """Numba's typing context, which remembers what it answered."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, function: Any, args: Any, keywords: Any) -> Any:
        """Return a function's signature for these arguments, as Numba's own."""
        if keywords or type(function) is not types.Function:
            return self._context.resolve_function_type(function, args, keywords)
        question = function, *args
        signature = _found.get(question)
        if signature is None:
            signature = self._context.resolve_function_type(function, args, keywords)
            if signature is not None:
                _found[question] = signature
        return signature


@register_pass(mutates_CFG=False, analysis_only=True)
class Inference(NopythonTypeInference):
    """Numba's step, in a context that remembers."""

    _name = "mhakit_type_inference"

    def run_pass(self, state: Any) -> bool:
        """Find all types of a function."""
        context = state.typingctx
        state.typingctx = _Remembering(context)
        try:
            return bool(super().run_pass(state))
        finally:
            state.typingctx = context
