"""Compile a kernel for the arguments it is given, and start it.

A kernel is compiled once a signature, and its arrays are typed as of any strides: layouts, views
and broadcast axes are numbers that it is told, not kernels of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda
from numba.core.errors import NumbaError
from numba.cuda import types
from numba.cuda.np.numpy_support import from_dtype

from mhakit.backends.user_functions import does_not_compile
from mhakit.errors import KernelError, MhakitError

__all__ = ["LARGEST_GRID", "failed", "naming", "signature_of", "start"]

LARGEST_GRID = 2**31 - 1
"""Blocks in one launch; kernels step by the grid, so that more work takes several steps."""


def start(
    function: Callable[..., None],
    items: int,
    block: tuple[int, int],
    stream: Any,
    arguments: tuple[Any, ...],
    score_mod: Callable[..., Any] | None = None,
) -> None:
    """Start a kernel on so many work items; the device may still be at it when this returns."""
    if items == 0:
        return
    with naming(function.__name__, score_mod):
        kernel = _compiled(function, signature_of(arguments))
        kernel[min(items, LARGEST_GRID), block, stream](*arguments)


@contextmanager
def naming(name: str, score_mod: Callable[..., Any] | None) -> Iterator[None]:
    """Turn what compiling and starting a kernel raise into errors that say whose fault it is."""
    try:
        yield
    except MhakitError:
        raise
    except NumbaError as error:
        if score_mod is None:
            raise
        raise does_not_compile(score_mod, error) from error
    except Exception as error:
        raise failed(name, error) from error


def failed(name: str, error: Exception) -> KernelError:
    """Return the error that says which kernel failed, and how."""
    return KernelError(
        f"the kernel of {name} must run to its end on the device, got "
        f"{type(error).__name__}: {error}; what was computed on this device since the last "
        "copy from it may be lost, and the process may have to be started anew"
    )


@lru_cache(maxsize=256)
def _compiled(function: Callable[..., None], signature: Any) -> Any:
    return cuda.jit(signature)(function)


def signature_of(arguments: tuple[Any, ...]) -> Any:
    """Return the types that a kernel is compiled for."""
    return types.void(*map(_type_of, arguments))


def _type_of(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return types.BaseTuple.from_types([_type_of(part) for part in argument])
    if hasattr(argument, "dtype") and argument.ndim:
        return types.Array(from_dtype(argument.dtype), argument.ndim, "A")
    if isinstance(argument, np.generic):
        return from_dtype(argument.dtype)
    if isinstance(argument, bool):
        return types.boolean
    return types.float64 if isinstance(argument, float) else types.int64
