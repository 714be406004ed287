"""Compile a tile kernel for the device in hand and launch it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import binding, driver

from mhakit.backends.cuda.tiles.call import blocks_of, fields_of, variant_of
from mhakit.backends.cuda.tiles.fields import FLOATS, INTEGERS
from mhakit.backends.cuda.tiles.program import program
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.problem import Problem

__all__ = ["launch"]

_STATIC = 48 * 1024
"""Bytes of shared memory that a block gets without asking."""
_dispatchers: dict[tuple[Variant, Callable[..., Any] | None], Any] = {}
_prepared: set[tuple[Any, ...]] = set()


def launch(problem: Problem, out: Any, lse: Any | None, stream: Any) -> None:
    """Write attention's output and, where ``lse`` is given, lse, in the order of a stream."""
    variant = variant_of(problem)
    blocks = blocks_of(problem, variant)
    if blocks == 0:
        return
    numbers = fields_of(problem, variant, out, lse)
    arguments: tuple[Any, ...] = (
        tuple(np.int64(numbers[name]) for name in INTEGERS),
        tuple(np.float32(numbers[name]) for name in FLOATS),
    )
    if variant.score_mod:
        arguments += (problem.score_args,)
    dispatcher = _dispatcher_of(variant, problem.score_mod)
    _allow_shared(dispatcher, variant, arguments)
    place = cuda.external_stream(stream) if isinstance(stream, int) else stream
    dispatcher[blocks, variant.threads, place, variant.shared_bytes](*arguments)


def _dispatcher_of(variant: Variant, score_mod: Callable[..., Any] | None) -> Any:
    key = variant, score_mod
    if key not in _dispatchers:
        _dispatchers[key] = cuda.jit(
            program(variant, score_mod=score_mod),
            launch_bounds=(variant.threads, variant.blocks),
        )
    return _dispatchers[key]


def _allow_shared(dispatcher: Any, variant: Variant, arguments: tuple[Any, ...]) -> None:
    """Ask the driver for more shared memory than a block has by itself, once a device."""
    if variant.shared_bytes <= _STATIC:
        return
    types = tuple(cuda.typeof(argument) for argument in arguments)
    device = cuda.current_context().device
    key = dispatcher, types, device.id
    if key in _prepared:
        return
    function = dispatcher.compile(types)._codelibrary.get_cufunc()
    attribute = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.cuKernelSetAttribute(attribute, variant.shared_bytes, function.handle, device.id)
    _prepared.add(key)
