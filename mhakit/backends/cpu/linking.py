"""How a function that only kernels call is compiled: linked into them, and nothing more.

Numba turns each function into machine code of its own before it links it into its callers, where
it is optimised and turned into machine code once more. What is never called by itself needs
neither: a sixth of the time that a first call waits.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import InlineOverloads, NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes

__all__ = ["LinkedOnly"]


class _Linked(JITCodeLibrary):
    """Code to link into others, which are optimised as a whole."""

    def _optimize_final_module(self) -> None:
        """Leave it to whoever it is linked into."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lower(NativeLowering):
    """Lower a function into code to link, and tell its callers."""

    _name = "mhakit_lowering_to_link"

    def run_pass(self, state: Any) -> bool:
        state.library = _Linked(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        state.targetctx.enable_nrt = False  # arrays here are nobody's own: nothing to count
        super().run_pass(state)
        # Numba looks a function up by the builtin that Python would call: any will do that is no
        # other's, and this one raises
        name: Any = [].pop
        state.targetctx.insert_user_function(name, state.cr.fndesc, [state.library])
        state.reload_init.extend(state.library._reload_init)
        state.cr = state.cr._replace(cfunc=name)
        return True


_LEFT_OUT = (NativeLowering, NopythonRewrites, InlineClosureLikes, InlineOverloads)
"""What is done otherwise here, and what is for array expressions, closures and inlining in Python
code: kernels have none."""


class LinkedOnly(Compiler):
    """Numba's compiler without its last step and without what kernels have no use for."""

    def define_pipelines(self) -> list[Any]:
        """Return the default pipeline with another lowering and fewer steps."""
        (pipeline,) = super().define_pipelines()
        pipeline._finalized = False
        pipeline.add_pass_after(_Lower, NativeLowering)
        pipeline.passes = [step for step in pipeline.passes if step[0] not in _LEFT_OUT]
        pipeline.finalize()
        return [pipeline]
