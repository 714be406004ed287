"""How kernels are compiled: what only they call is linked into them, and all is optimised once.

Numba turns each function into machine code of its own before it links it into its callers, where
it is optimised and turned into machine code once more. What is never called by itself needs
neither: a sixth of the time that a first call waits. A kernel Numba optimises twice, first for
what counts references: kernels count none.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import (
    InlineOverloads,
    NativeLowering,
    NopythonRewrites,
    NopythonTypeInference,
)
from numba.core.untyped_passes import InlineClosureLikes

from mhakit.backends.cpu.inference import Inference, forget

__all__ = ["Kernel", "LinkedOnly"]


class _Linked(JITCodeLibrary):
    """Code to link into others, which are optimised as a whole."""

    def _optimize_functions(self, module: Any) -> None:
        """Do what makes the code small: the rest is done again in the whole."""
        module.data_layout = self._codegen._data_layout
        for function in module.functions:
            if not function.is_declaration:
                manager, builder = self._codegen._function_pass_manager(opt=1)
                manager.run(function, builder)

    def _optimize_final_module(self) -> None:
        """Leave it to whoever it is linked into."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _Once(JITCodeLibrary):
    """Code that is optimised once."""

    def _optimize_final_module(self) -> None:
        manager, builder = self._codegen._module_pass_manager()
        manager.run(self._final_module, builder)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerKernel(NativeLowering):
    """Lower what is called from outside."""

    _name = "mhakit_lowering_a_kernel"

    def run_pass(self, state: Any) -> bool:
        state.library = _Once(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        forget()
        return bool(super().run_pass(state))


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


_LEFT_OUT = (
    NativeLowering,
    NopythonTypeInference,
    NopythonRewrites,
    InlineClosureLikes,
    InlineOverloads,
)
"""What is done otherwise here, and what is for array expressions, closures and inlining in Python
code: kernels have none."""


def _pipeline(compiler: Compiler, lowering: type[NativeLowering]) -> list[Any]:
    """Return Numba's default pipeline with two steps of our own and fewer others."""
    (pipeline,) = Compiler.define_pipelines(compiler)
    pipeline._finalized = False
    pipeline.add_pass_after(Inference, NopythonTypeInference)
    pipeline.add_pass_after(lowering, NativeLowering)
    pipeline.passes = [step for step in pipeline.passes if step[0] not in _LEFT_OUT]
    pipeline.finalize()
    return [pipeline]


class LinkedOnly(Compiler):
    """Numba's compiler without its last step and without what kernels have no use for."""

    def define_pipelines(self) -> list[Any]:
        """Return the steps."""
        return _pipeline(self, _Lower)


class Kernel(Compiler):
    """Numba's compiler without what kernels have no use for."""

    def define_pipelines(self) -> list[Any]:
        """Return the steps."""
        return _pipeline(self, _LowerKernel)
