"""Compile a tile kernel for the device in hand and launch it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, typeof
from numba.cuda.cudadrv import driver

from mhakit.backends.cuda.tiles.call import blocks_of, fields_of, variant_of
from mhakit.backends.cuda.tiles.fields import FLOATS, INTEGERS
from mhakit.backends.cuda.tiles.kernels import AnyVariant
from mhakit.backends.cuda.tiles.program import program
from mhakit.backends.cuda.tiles.segments import decoding_of, launches_of
from mhakit.problem import Problem

__all__ = ["launch", "launch_decoding"]

_STATIC = 48 * 1024
"""Bytes of shared memory that a block gets without asking."""


class _Kernel(NamedTuple):
    """A dispatcher, and where and for what its shared memory was asked for."""

    dispatcher: Any
    prepared: set[tuple[Any, ...]]


def launch(problem: Problem, out: Any, lse: Any | None, stream: Any) -> None:
    """Write attention's output and, where ``lse`` is given, lse, in the order of a stream."""
    variant = variant_of(problem, _capability())
    numbers = fields_of(problem, variant, out, lse)
    _start(problem, variant, blocks_of(problem, variant), numbers, stream)


def launch_decoding(
    problem: Problem, out: Any, lse: Any | None, parts: Any | None, stream: Any
) -> None:
    """Do as `launch` by segments of sources, merged where there are several."""
    variant = decoding_of(problem, _capability())
    numbers = fields_of(problem, variant, out, lse, parts)
    for one, blocks in launches_of(problem, variant):
        _start(problem, one, blocks, numbers, stream)


def _capability() -> tuple[int, int]:
    major, minor = cuda.current_context().device.compute_capability
    return major, minor


def _start(
    problem: Problem, variant: AnyVariant, blocks: int, numbers: dict[str, Any], stream: Any
) -> None:
    if blocks == 0:
        return
    arguments: tuple[Any, ...] = (
        tuple(np.int64(numbers[name]) for name in INTEGERS),
        tuple(np.float32(numbers[name]) for name in FLOATS),
    )
    if variant.score_mod:
        arguments += (problem.score_args,)
    kernel = _kernel_of(variant, problem.score_mod if variant.score_mod else None, _capability())
    _allow_shared(kernel, variant, arguments)
    kernel.dispatcher[blocks, variant.threads, stream, variant.shared_bytes](*arguments)


@lru_cache(maxsize=256)
def _kernel_of(
    variant: AnyVariant, score_mod: Callable[..., Any] | None, capability: tuple[int, int]
) -> _Kernel:
    dispatcher = cuda.jit(
        program(variant, score_mod=score_mod, capability=capability),
        launch_bounds=(variant.threads, variant.blocks),
    )
    return _Kernel(dispatcher, set())


def _allow_shared(kernel: _Kernel, variant: AnyVariant, arguments: tuple[Any, ...]) -> None:
    """Ask the driver for more shared memory than a block has by itself, once a device."""
    if variant.shared_bytes <= _STATIC:
        return
    types = tuple(typeof(argument) for argument in arguments)
    device = cuda.current_context().device
    if (types, device.id) in kernel.prepared:
        return
    function = kernel.dispatcher.compile(types)._codelibrary.get_cufunc()
    attribute = driver.binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.driver.cuKernelSetAttribute(attribute, variant.shared_bytes, function.handle, device.id)
    kernel.prepared.add((types, device.id))
