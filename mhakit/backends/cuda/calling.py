"""One call of a verb: arrays brought to the device, kernels started, results handed back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from mhakit.backends.cuda import memory
from mhakit.backends.cuda.launch import failed, start
from mhakit.backends.cuda.score_mod import refuse_other_than_a_number
from mhakit.device import DeviceArray
from mhakit.errors import MhakitError, ParameterError
from mhakit.problem import Problem

__all__ = ["Call"]


class Call:
    """Where a call runs, and what it holds until its results are handed back.

    Arrays of the host are copied in, and results copied out at the end of the ``with``. Arrays of
    a device are read where they lie, on the stream of the first of them, and nothing is waited
    for.
    """

    def __init__(self, like: Any, name: str) -> None:
        self._like, self._name = like, name
        self._on_device = isinstance(like, DeviceArray)
        self._ordinal = memory.ordinal(like) if self._on_device else None
        self._results: list[tuple[Any, np.ndarray[Any, Any]]] = []
        self._context: Any = None
        self.stream: Any = 0

    def __enter__(self) -> Call:
        if self._on_device:
            self._context = cuda.gpus[self._ordinal]
            self._context.__enter__()
            self.stream = memory.stream_at(self._like.stream)
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                for made, into in self._results:
                    memory.copy_out(made, into, self.stream)
        except MhakitError:
            raise
        except Exception as error:
            raise failed(self._name, error) from error
        finally:
            self._results.clear()
            if self._context is not None:
                self._context.__exit__(kind, *rest)

    def given(self, array: Any, name: str, absent: tuple[np.dtype[Any], int] | None = None) -> Any:
        """Return an input as kernels take it, or one of a dtype and axes where it is None."""
        if array is None:
            assert absent is not None
            return memory.placeholder(self._ordinal, *absent)
        if isinstance(array, DeviceArray):
            return self._borrowed(array, name)
        return memory.copy_in(array, name, self.stream)

    def written(
        self, array: Any, name: str, absent: tuple[np.dtype[Any], int] | None = None
    ) -> Any:
        """Return an output as kernels take it, or one of a dtype and axes where it is None."""
        if array is None or isinstance(array, DeviceArray):
            return self.given(array, name, absent)
        made = memory.make(array.shape, array.dtype, name, self.stream)
        self._results.append((made, array))
        return made

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Any:
        """Return a new output, where the call's arrays lie."""
        if self._on_device:
            return memory.empty(shape, dtype, self._like, name)
        return np.empty(shape, dtype)

    def run(
        self,
        function: Callable[..., None],
        items: int,
        block: tuple[int, int],
        *arguments: Any,
        score_mod: Callable[..., Any] | None = None,
    ) -> None:
        """Start a kernel on so many work items."""
        start(function, items, block, self.stream, arguments, score_mod)

    def scoring_arguments(self, problem: Problem) -> tuple[Any, ...]:
        """Return what every kernel of scores takes first."""
        refuse_other_than_a_number(problem)
        real = problem.real.type
        return (
            self.given(problem.query, "query"),
            self.given(problem.key, "key"),
            self.given(problem.mask, "mask", (np.dtype(np.bool_), 4)),
            self.given(problem.bias, "bias", (problem.query.dtype, 4)),
            self.given(np.asarray(problem.query_offset), "query_offset"),
            self.given(np.asarray(problem.key_lengths), "key_lengths"),
            problem.left,
            problem.right,
            real(problem.scale),
            real(problem.softcap),
            self.carried(problem.score_args),
        )

    def carried(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return score_args with their arrays on the device."""
        return tuple(
            self.carried(one)
            if isinstance(one, tuple)
            else self.given(one, "an array of score_args")
            if isinstance(one, (np.ndarray, DeviceArray)) and one.ndim
            else one
            for one in arguments
        )

    def _borrowed(self, array: DeviceArray, name: str) -> Any:
        lies = memory.ordinal(array)
        if lies != self._ordinal:
            raise ParameterError(
                f"{name} must lie on the device of the first array, CUDA device {self._ordinal}, "
                f"got one on CUDA device {lies}; copy it there"
            )
        other = memory.stream_at(array.stream)
        if array.stream is not None and array.stream != self._like.stream:
            made = cuda.event()
            made.record(other)
            made.wait(self.stream)
        return memory.borrow(array)
