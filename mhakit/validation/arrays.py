"""One array or list of the caller's at a time: what it is, and memory for what is returned."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mhakit.device import DeviceArray, is_device_array, is_on_device, read
from mhakit.errors import DTypeError, OutOfMemory, ParameterError, ShapeError
from mhakit.problem import UNBOUNDED

__all__ = [
    "as_arguments",
    "as_array",
    "as_dtype",
    "as_float_array",
    "as_indices",
    "as_integers",
    "as_output",
    "as_placed_array",
    "as_size",
    "broadcast_to",
    "empty",
    "out_of_memory",
    "require_layout",
    "require_one_place",
    "require_rank",
    "require_same_dtype",
]

Array = NDArray[Any]

FLOATS = ("float64", "float32", "float16", "bfloat16")
LAYOUTS = ("BHTD", "BTHD")
LARGEST = UNBOUNDED // 2  # so that position + reach stays an int64


def as_array(value: object, name: str) -> Array:
    """Return ``value`` as an ndarray without a copy, or raise DTypeError."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(
            f"{name} must not be a masked array, whose mask would be lost; "
            "pass its .data, and what is hidden as mask="
        )
    if is_on_device(value):
        raise DTypeError(
            f"{name} must be an array in host memory, got {type(value).__name__} on a CUDA "
            "device, where this is not computed; copy it to the host"
        )
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return cast(Array, np.from_dlpack(value))
    except Exception as error:
        raise DTypeError(
            f"{name} must be an array on the CPU that NumPy can read, got "
            f"{type(value).__name__} ({error}); pass a NumPy array"
        ) from error
    raise DTypeError(
        f"{name} must be an array, got {type(value).__name__}; "
        f"pass np.asarray({name}) of a float dtype"
    )


def as_placed_array(value: object, name: str) -> Array:
    """Return ``value`` as `as_array` does, or where it lies if that is a CUDA device's memory.

    A `DeviceArray` stands in for the ndarray from here on: shape, strides and views, no numbers.
    """
    if type(value) is not np.ndarray and is_on_device(value):
        return cast(Array, read(value, name))
    return as_array(value, name)


def as_float_array(value: object, name: str, *, placed: bool = False) -> Array:
    """Return ``value`` as an ndarray of float64, float32, float16 or bfloat16, without a copy.

    With ``placed`` it may be an array in a device's memory, as `as_placed_array` returns it.
    """
    array = as_placed_array(value, name) if placed else as_array(value, name)
    dtype = array.dtype
    if _is_taken(dtype):
        return array
    if dtype.name not in FLOATS:
        raise DTypeError(f"{name} must be {', '.join(FLOATS[:3])} or bfloat16, got {dtype.name}")
    raise DTypeError(
        f"{name} must be in this machine's byte order, got {dtype.str}; "
        f"pass {name}.astype({name}.dtype.newbyteorder('='))"
    )


@cache
def _is_taken(dtype: np.dtype[Any]) -> bool:
    return dtype.name in FLOATS and dtype.isnative


def require_same_dtype(arrays: dict[str, Array]) -> None:
    """Raise DTypeError unless all the arrays are of the first one's dtype."""
    names = list(arrays)
    first = arrays[names[0]].dtype
    for name in names[1:]:
        if arrays[name].dtype != first:
            raise DTypeError(
                f"{name} must have the dtype of {names[0]}, {first.name}, "
                f"got {arrays[name].dtype.name}"
            )


def require_one_place(arrays: dict[str, Array | None] | dict[str, Array]) -> None:
    """Raise ParameterError unless all the arrays lie where the first one does: host or device."""
    first, *others = [name for name, array in arrays.items() if array is not None]
    on_device = is_device_array(arrays[first])
    here, there = "host memory", "the memory of a CUDA device"
    if on_device:
        here, there = there, here
    for name in others:
        if is_device_array(arrays[name]) != on_device:
            raise ParameterError(
                f"{name} must lie where {first} lies, in {here}, got one in {there}; "
                "copy one of them"
            )


def as_arguments(score_args: tuple[Any, ...], query: Array) -> tuple[Any, ...]:
    """Return score_args, what of them lies on a device as `DeviceArray`, as the query then does."""
    if not any(isinstance(one, tuple) or is_on_device(one) for one in score_args):
        return score_args

    def placed(one: Any) -> Any:
        if isinstance(one, tuple):
            return as_arguments(one, query)
        if not is_on_device(one):
            return one
        array = cast(Array, read(one, "an array of score_args"))
        require_one_place({"query": query, "an array of score_args": array})
        return array

    return tuple(map(placed, score_args))


def broadcast_to(array: Array, shape: tuple[int, ...]) -> Array:
    """View an array of the host or a device as one of that shape; ValueError where it is none."""
    if is_device_array(array):
        return cast(Array, array.broadcast_to(shape))
    return np.broadcast_to(array, shape)


def require_layout(layout: object) -> None:
    """Raise ParameterError unless ``layout`` names an axis order."""
    if layout not in LAYOUTS:
        raise ParameterError(f"layout must be 'BHTD' or 'BTHD', got {layout!r}")


def require_rank(array: Array, name: str, batched: bool, letters: str) -> None:
    """Raise ShapeError unless ``array`` has the axes ``letters``, all of them or all but B."""
    axes = letters if batched else letters[1:]
    if array.ndim != len(axes):
        raise ShapeError(
            f"{name} must be {_axes(axes)} {_with_b(batched)}, got shape {array.shape}"
        )


def _axes(letters: str) -> str:
    return f"({', '.join(letters)})"


def _with_b(batched: bool) -> str:
    return "as query has B" if batched else "as query has no B"


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Array:
    """Allocate an array, or raise OutOfMemory that says how many bytes were asked for."""
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more than the address space
        raise out_of_memory(shape, dtype, what) from error


def out_of_memory(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> OutOfMemory:
    """Return the error that says how many bytes were asked for."""
    size = math.prod(shape) * dtype.itemsize
    return OutOfMemory(
        f"{what} of shape {shape} and dtype {dtype.name} must fit in memory, "
        f"got a request of {size:,} bytes that was refused; "
        "ask for fewer rows or heads at a time"
    )


def as_output(
    out: object, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: dict[str, Array | None]
) -> Array:
    """Check the array a caller wants written: exact shape and dtype, no memory of an input."""
    given = next(iter(inputs.values()))
    if is_device_array(given):
        return cast(Array, _as_device_output(out, shape, dtype, inputs))
    if not isinstance(out, np.ndarray):
        raise DTypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ShapeError(f"out must have shape {shape}, got shape {out.shape}")
    if out.dtype != dtype:
        raise DTypeError(f"out must have dtype {dtype.name}, got {out.dtype.name}")
    if not out.flags.writeable:
        raise ParameterError("out must be writeable, got a read-only array")
    for name, array in inputs.items():
        if array is not None and np.shares_memory(out, array):
            raise ParameterError(
                f"out must share no memory with {name}, got an array that does; pass a fresh one"
            )
    return out


def _as_device_output(
    out: object, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: dict[str, Array | None]
) -> DeviceArray:
    """Check an array of a device's memory that a caller wants written."""
    if not is_on_device(out):
        raise DTypeError(
            f"out must be an array on the inputs' CUDA device, got {type(out).__name__}"
        )
    array = read(out, "out")
    if array.shape != shape:
        raise ShapeError(f"out must have shape {shape}, got shape {array.shape}")
    if array.dtype != dtype:
        raise DTypeError(f"out must have dtype {dtype.name}, got {array.dtype.name}")
    if array.readonly:
        raise ParameterError("out must be writeable, got a read-only array")
    for name, given in inputs.items():
        if is_device_array(given) and array.shares_memory(given):
            raise ParameterError(
                f"out must share no memory with {name}, got an array that does; pass a fresh one"
            )
    return array


def as_integers(value: object, name: str) -> NDArray[np.int64]:
    """Return integers of any kind, lists too, as int64."""
    if is_on_device(value):
        raise ParameterError(
            f"{name} must lie in host memory, got one in the memory of a CUDA device; copy it there"
        )
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # a ragged list
        raise DTypeError(f"{name} must be integers, got {value!r}") from error
    if array.size == 0 and isinstance(value, list):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{name} must be integers, got {array.dtype.name}")
    if array.size and (array.max() > LARGEST or array.min() < -LARGEST):
        raise ParameterError(f"{name} must lie within +-2**60, got {array.max()} and {array.min()}")
    return array.astype(np.int64)


def as_indices(indices: object | None, name: str, size: int, letter: str) -> NDArray[np.int64]:
    """Return chosen positions along an axis, negatives counted from its end; None is all."""
    if indices is None:
        return np.arange(size, dtype=np.int64)
    array = as_integers(indices, name)
    if array.ndim != 1:
        raise ShapeError(
            f"{name} must be a 1-D list of positions in {letter}, got shape {array.shape}"
        )
    wrong = array[(array < -size) | (array >= size)]
    if wrong.size:
        raise ParameterError(
            f"{name} must lie in [{-size}, {size}) as {letter}={size}, got {int(wrong[0])}"
        )
    return np.asarray(np.where(array < 0, array + size, array), dtype=np.int64)


def as_dtype(dtype: object) -> np.dtype[Any]:
    """Return the dtype of parameters: one of the four floats."""
    rule = "dtype must be float64, float32, float16 or ml_dtypes.bfloat16"
    try:
        result: np.dtype[Any] = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError as error:
        raise DTypeError(f"{rule}, got {dtype!r}") from error
    # NumPy reads None as float64
    if dtype is None or result.name not in FLOATS or not result.isnative:
        raise DTypeError(f"{rule}, got {dtype!r}")
    return result


def as_size(value: object, name: str) -> int:
    """Return a size as an int."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ParameterError(f"{name} must be an int of at least 1, got {value!r}")
    return int(value)
