"""The machine that computes with NumPy: all threads of a block at once, step by step.

What differs between threads is an array over them, what is the same in all is a scalar. It takes
the kernel's own source, and fails where `mhakit.backends.cuda.tiles.memory` sees a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.backends.cuda.tiles.machine import WARP, Number, State
from mhakit.backends.cuda.tiles.memory import Fault, GlobalMemory, SharedMemory
from mhakit.backends.cuda.tiles.tensor_core import multiply_tf32

__all__ = ["Twin"]

Array = NDArray[Any]
_TINY = np.float32(2.0**-126)


class Twin:
    """One block of threads; see `mhakit.backends.cuda.tiles.machine.Machine`."""

    def __init__(
        self,
        dtype: str,
        threads: int,
        block: int,
        shared_bytes: int,
        memory: GlobalMemory,
        fields: Mapping[str, Number],
        modify: Callable[..., Any] | None = None,
    ) -> None:
        self.half = dtype
        self.thread = np.arange(threads, dtype=np.int32)
        self.block = np.int32(block)
        self.memory, self.shared = memory, SharedMemory(shared_bytes)
        self._fields, self._modify = fields, modify
        self._warp = -10 - self.thread // WARP  # a warp that reads as one is none of its threads

    def _all(self, x: Number) -> Array:
        return np.broadcast_to(x, self.thread.shape)

    # numbers

    def field(self, name: str) -> Number:
        return self._fields[name]

    def int32(self, x: Number) -> Number:
        wide = np.asarray(x)
        with np.errstate(invalid="ignore"):
            narrow = wide.astype(np.int32)
        if wide.dtype.kind != "f" and (narrow != wide).any():
            raise Fault("a number does not fit an int32")
        return narrow[()]

    def int64(self, x: Number) -> Number:
        return np.asarray(x).astype(np.int64)[()]

    def word(self, x: Number) -> Number:
        return np.asarray(x).astype(np.int64).astype(np.uint32)[()]

    def float32(self, x: Number) -> Number:
        return np.asarray(x).astype(np.float32)[()]

    def select(self, condition: Number, then: Number, otherwise: Number) -> Number:
        kinds = {x.dtype for x in (then, otherwise) if isinstance(x, (np.ndarray, np.generic))}
        if len(kinds) != 1:
            raise TypeError(f"both numbers must be of one type, got {kinds}")
        chosen: Array = np.asarray(np.where(condition, then, otherwise), kinds.pop())
        return chosen[()]

    def fma(self, a: Number, b: Number, c: Number) -> Number:
        wide = np.float64
        with np.errstate(all="ignore"):
            return self.float32(wide(a) * wide(b) + wide(c))

    def maximum(self, a: Number, b: Number) -> Number:
        return np.fmax(a, b)

    def exp2(self, x: Number) -> Number:
        with np.errstate(all="ignore"):
            exact = np.exp2(np.asarray(_flushed(x), np.float64))
        return _flushed(_rounded(x, exact, 2.0**-22.5))

    def log2(self, x: Number) -> Number:
        with np.errstate(all="ignore"):
            return self.float32(np.log2(np.asarray(_flushed(x), np.float64)))

    def reciprocal(self, x: Number) -> Number:
        with np.errstate(all="ignore"):
            return _flushed(self.float32(1 / np.asarray(_flushed(x), np.float64)))

    def shuffle(self, x: Number, mask: int) -> Number:
        return self._all(x)[self.thread ^ mask]

    def bits(self, x: Number) -> Number:
        return np.atleast_1d(np.asarray(x, np.float32)).view(np.uint32).reshape(np.shape(x))[()]

    def of_bits(self, x: Number) -> Number:
        return np.atleast_1d(np.asarray(x, np.uint32)).view(np.float32).reshape(np.shape(x))[()]

    def tf32(self, x: Number) -> Number:
        rounded = (self.bits(x) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
        return np.where(np.isnan(x), np.uint32(0x7FFFFFFF), rounded).astype(np.uint32)[()]

    def pack(self, low: Number, high: Number) -> Number:
        return self._bits(low) | (self._bits(high) << np.uint32(16))

    def _bits(self, x: Number) -> Array:
        """Round float32 to 16 bits, to nearest even."""
        with np.errstate(over="ignore"):
            if self.half == "float16":
                return (
                    np.asarray(x, np.float32).astype(np.float16).view(np.uint16).astype(np.uint32)
                )
        bits = np.atleast_1d(np.asarray(x, np.float32)).view(np.uint32)
        rounded = (
            bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        ) >> np.uint32(16)
        return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint32)

    def _wide(self, bits: Array) -> Array:
        """Return 16 bits as float64."""
        if self.half == "float16":
            return bits.astype(np.uint16).view(np.float16).astype(np.float64)
        return (bits << np.uint32(16)).view(np.float32).astype(np.float64)

    # tiles

    def _matrix(self, words: Number) -> Array:
        """Return the 8 x 8 matrix of each warp that a word of each lane makes up, as float64."""
        words = np.ascontiguousarray(self._all(words))
        pair = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=-1)
        return self._wide(pair).reshape(-1, 8, 8)

    def multiply(self, a: State, b: State, c: State) -> State:
        if self.half == "float32":
            return multiply_tf32(*([self._all(x) for x in part] for part in (a, b, c)))
        first, second, third, fourth = (self._matrix(words) for words in a)
        left = np.concatenate(
            [np.concatenate([first, third], -1), np.concatenate([second, fourth], -1)], -2
        )
        right = np.concatenate([self._matrix(words) for words in b], -1)  # (columns, k)
        with np.errstate(all="ignore"):
            product = left @ right.swapaxes(-1, -2)
            rows = product.reshape(-1, 2, 8, 4, 2)  # warp, half, row, lane of four, column
            return [
                self.float32(rows[:, i // 2, :, :, i % 2].reshape(-1) + self._all(c[i]))
                for i in range(4)
            ]

    def load_matrices(self, address: Number, *, transposed: bool) -> State:
        addresses = self._all(address)
        content = self.shared.read(addresses, 16, self._warp)
        rows = content.view(np.uint16).reshape(-1, 4, 8, 8)  # warp, matrix, row, column
        if transposed:
            rows = rows.swapaxes(-1, -2)
        pairs = np.ascontiguousarray(rows).view(np.uint32)
        return [np.ascontiguousarray(pairs[:, i]).reshape(-1) for i in range(4)]

    def copy(self, shared: Number, address: Number, visible: Number) -> None:
        seen, addresses = self._all(visible), self._all(address)
        if (addresses % 16).any():
            raise Fault("a copy of 16 bytes from an address that is no multiple of 16")
        content = np.zeros((self.thread.size, 16), np.uint8)
        if seen.any():
            content[seen] = self.memory.read(addresses[seen], 16)
        self.shared.copy(self._all(shared), content, self.thread)

    def commit(self) -> None:
        self.shared.commit()

    def wait(self, groups: int) -> None:
        self.shared.wait(groups)

    def barrier(self) -> None:
        self.shared.barrier()

    def barrier_any(self, condition: Number) -> Number:
        self.shared.barrier()
        return np.bool_(np.any(condition))

    def warp_barrier(self) -> None:
        pass  # nobody may rely on it for what others wrote

    # memory

    def load_shared(self, address: Number) -> State:
        words = self.shared.read(self._all(address), 16, self.thread).view(np.uint32)
        return [words[:, i].copy() for i in range(4)]

    def load_shared_floats(self, address: Number) -> State:
        return [word.view(np.float32) for word in self.load_shared(address)]

    def load_pair(self, address: Number) -> State:
        words = self.shared.read(self._all(address), 8, self.thread).view(np.uint32)
        return [words[:, i].copy() for i in range(2)]

    def load_word(self, address: Number) -> Number:
        return self.shared.read(self._all(address), 4, self.thread).view(np.uint32)[:, 0]

    def store_shared(self, address: Number, words: State) -> None:
        self.shared.write(self._all(address), self._content(words), self.thread)

    def _content(self, words: State) -> NDArray[np.uint8]:
        table = np.stack([self._all(word) for word in words], axis=-1)
        return np.ascontiguousarray(table).view(np.uint8)

    def _load(self, address: Number, size: int, dtype: Any) -> Number:
        found = self.memory.read(np.atleast_1d(address), size).view(dtype)[:, 0]
        return found if np.ndim(address) else found[0]

    def load_int64(self, address: Number) -> Number:
        return self._load(address, 8, np.int64)

    def load_float32(self, address: Number) -> Number:
        return self._load(address, 4, np.float32)

    def load_floats(self, address: Number) -> State:
        floats = self.memory.read(self._all(address), 16).view(np.float32)
        return [floats[:, i].copy() for i in range(4)]

    def load_bool(self, address: Number) -> Number:
        return self._load(address, 1, np.uint8) != 0

    def store_words(self, address: Number, words: State, when: Number) -> None:
        chosen = self._all(when)
        self.memory.write(self._all(address)[chosen], self._content(words)[chosen])

    def store_float32(self, address: Number, x: Number, when: Number) -> None:
        chosen = self._all(when)
        content = np.ascontiguousarray(self._all(x))[:, None].view(np.uint8)
        self.memory.write(self._all(address)[chosen], content[chosen])

    def modify(self, score: Number, b: Number, h: Number, t: Number, s: Number) -> Number:
        assert self._modify is not None
        results = [
            self._modify(*(x[()] for x in numbers))
            for numbers in zip(*(self._all(x) for x in (score, b, h, t, s)), strict=True)
        ]
        return np.array(results).astype(np.float32)

    # control

    def anew(self) -> None:
        pass

    def loop(
        self, first: Number, past: Number, state: State, body: Callable[[Number, State], State]
    ) -> State:
        for i in range(_alike(first), _alike(past)):
            state = body(np.int32(i), state)
        return state

    def choose(
        self,
        condition: Number,
        state: State,
        then: Callable[[State], State],
        otherwise: Callable[[State], State] = lambda state: state,
    ) -> State:
        return then(state) if _alike(condition) else otherwise(state)


def _alike(x: Number) -> Any:
    """Return what all threads agree on."""
    if np.ndim(x):
        raise Fault("threads of a block must agree on where they go")
    return x


def _flushed(x: Number) -> Number:
    """Return float32 with numbers below the normal ones as 0, as .ftz does."""
    return np.where(np.abs(x) < _TINY, np.float32(0), x).astype(np.float32)[()]


def _rounded(x: Number, exact: Array, error: float) -> Array:
    """Return float32 as far from exact as an approximation may be, the same for the same x."""
    bits = np.atleast_1d(np.asarray(x, np.float32)).view(np.uint32).reshape(np.shape(x))
    odd = (bits * np.uint32(2654435761)) >> np.uint32(8)
    off = np.where(np.asarray(x) == 0, 0.0, odd / 2.0**23 - 1.0) * error
    with np.errstate(all="ignore"):
        return np.asarray(exact * (1 + off)).astype(np.float32)
