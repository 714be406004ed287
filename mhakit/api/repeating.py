"""Calls of attention that ask for nothing but arrays, and are like an earlier one.

What was checked and made ready for the second of them holds for all: they differ in where their
arrays lie. A call of a few words is over sooner than its checks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mhakit import backends
from mhakit.api.arguments import as_problem, by_head, output_for
from mhakit.validation import empty

__all__ = ["repeated"]

Array = NDArray[Any]

MOST = 1024
"""Kinds of calls that are remembered; with one more, all are forgotten."""


class _Known(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    prepared: Any


_known: dict[tuple[Any, ...], _Known | None] = {}
"""By shapes, strides and dtypes; None after the first call, whose kind may never come again."""


def repeated(query: Any, key: Any, value: Any) -> Array | None:
    """Return attention's output on the ``cpu`` backend, or None where the call is to be checked."""
    if not (type(query) is type(key) is type(value) is np.ndarray):
        return None
    like = (
        query.shape, query.strides, query.dtype, key.shape, key.strides, key.dtype,
        value.shape, value.strides, value.dtype,
    )  # fmt: skip
    try:
        known = _known[like]
    except KeyError:
        if len(_known) >= MOST:
            _known.clear()
        _known[like] = None
        return None
    if known is None:
        known = _known[like] = _prepare(query, key, value)
    output = empty(known.shape, known.dtype, "output")
    known.prepared.run_on(query, key, value, output)
    return output


def _prepare(query: Array, key: Array, value: Array) -> _Known:
    """Check a call and make it ready."""
    problem, batched = as_problem(query, key, value)
    assert problem.value is not None
    shape = (*problem.query.shape[:3], problem.value.shape[3])
    output = output_for(None, shape, query.dtype, "BHTD", batched, {})
    prepared = backends.select("cpu").prepare(problem, by_head(output, "BHTD", batched))
    return _Known(output.shape, output.dtype, prepared)
