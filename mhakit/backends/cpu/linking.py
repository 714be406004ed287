"""How kernels are compiled: what only they call is linked into them, and all is optimised once.

Numba turns each function into machine code of its own, with all that it calls, before it links it
into its callers, where that is done once more. What is never called by itself needs none of it.
A kernel Numba optimises twice, first for what counts references: kernels count none. Both are a
third of the time that a first call waits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from llvmlite.binding import (
    Linkage,
    TargetData,
    create_new_function_pass_manager,
    create_pass_builder,
    create_pipeline_tuning_options,
)
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import (
    InlineOverloads,
    IRLegalization,
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
        """Put variables into registers, which makes the code small: the rest is the whole's."""
        module.data_layout = self._codegen._data_layout
        builder = create_pass_builder(self._codegen._tm, create_pipeline_tuning_options())
        manager = create_new_function_pass_manager()
        manager.add_sroa_pass()
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)

    def finalize(self) -> None:
        """Leave the rest to whoever it is linked into, what it calls itself among it."""
        self._raise_if_finalized()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.linkage = Linkage.linkonce_odr.name
        self._shared_module = self._final_module
        self._finalized = True


class _Once(JITCodeLibrary):
    """Code that is optimised once, together with all that it calls."""

    def finalize(self) -> None:
        """Link what is called, optimise all and turn it into machine code."""
        self._linking_libraries = _called(self)
        super().finalize()

    def _optimize_final_module(self) -> None:
        """Do all but unroll loops, of which none was faster for it."""
        options = create_pipeline_tuning_options(int(config.OPT))
        options.slp_vectorization, options.loop_unrolling = False, False
        builder = create_pass_builder(self._codegen._tm, options)
        builder.getModulePassManager().run(self._final_module, builder)


def _called(library: JITCodeLibrary) -> list[JITCodeLibrary]:
    """Return what is to be linked into some code: what it calls, and what that calls."""
    found, waiting = [], list(library._linking_libraries)
    while waiting:
        callee = waiting.pop()
        if callee not in found:
            found.append(callee)
            if isinstance(callee, _Linked):
                waiting += callee._linking_libraries
    return found


@cache
def _size(kind: ir.Type, layout: TargetData) -> int:
    return int(kind.get_abi_size(layout))


def _remember_sizes(context: Any) -> None:
    """Let a context parse a module for a type's size once, not for every variable."""
    context.get_abi_sizeof = lambda kind: _size(kind, context.target_data)


@register_pass(mutates_CFG=False, analysis_only=True)
class _LowerKernel(NativeLowering):
    """Lower what is called from outside."""

    _name = "mhakit_lowering_a_kernel"

    def run_pass(self, state: Any) -> bool:
        state.library = _Once(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        forget()
        _remember_sizes(state.targetctx)
        return bool(super().run_pass(state))


@register_pass(mutates_CFG=False, analysis_only=True)
class _Lower(NativeLowering):
    """Lower a function into code to link, and tell its callers."""

    _name = "mhakit_lowering_to_link"

    def run_pass(self, state: Any) -> bool:
        state.library = _Linked(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        state.targetctx.enable_nrt = False  # arrays here are nobody's own: nothing to count
        _remember_sizes(state.targetctx)
        super().run_pass(state)
        # Numba looks a function up by the builtin that Python would call: any will do that is no
        # other's, and this one raises
        name: Any = [].pop
        state.targetctx.insert_user_function(name, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=name)
        return True


_LEFT_OUT = (
    NativeLowering,
    NopythonTypeInference,
    NopythonRewrites,
    InlineClosureLikes,
    InlineOverloads,
    IRLegalization,
)
"""What is done otherwise here, and what is for array expressions, closures, inlining in Python code
and the deletion of variables that are counted: kernels have none."""


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
