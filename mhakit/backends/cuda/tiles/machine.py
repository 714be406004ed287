"""The vocabulary that tile kernels are written in; each word has two meanings.

`mhakit.backends.cuda.tiles.ptx` emits instructions for one thread, its loops and branches by
`mhakit.backends.cuda.tiles.flow`; `mhakit.backends.cuda.tiles.twin` computes with NumPy for all
threads of a block at once. A kernel is a Python function of a machine: its Python loops are
unrolled while it runs, `loop` and `choose` run on the device.

Numbers know + - * // % & | ^ << >> and comparisons, in the types int32, int64, word (32 bits
without sign), float32 and bool. A kernel never asks which machine it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["BARRIER_THREADS", "WARP", "Machine", "Number", "State", "lane_of", "warp_of"]

WARP = 32
BARRIER_THREADS = 1024
Number = Any
State = list[Any]


class Machine(Protocol):
    """What a kernel can do. Addresses are bytes: int64 in global, int32 in shared memory."""

    thread: Number
    """int32, this thread's place in its block"""
    block: Number
    """int32, the same in every thread, as all that steers `loop` and `choose` must be"""

    def field(self, name: str) -> Number:
        """Return a number of the call: int64, or float32 as `fields.FLOATS` lists it."""

    def int32(self, x: Number) -> Number:
        """Return ``x`` as int32; whoever calls knows that it fits."""

    def int64(self, x: Number) -> Number:
        """Return ``x`` as int64."""

    def word(self, x: Number) -> Number:
        """Return an int32, or a bool as 0 or 1, as a word."""

    def float32(self, x: Number) -> Number:
        """Return a Python float, int32 or bool as float32."""

    def select(self, condition: Number, then: Number, otherwise: Number) -> Number:
        """Return one of two numbers of one type."""

    def fma(self, a: Number, b: Number, c: Number) -> Number:
        """Return a * b + c, rounded once."""

    def maximum(self, a: Number, b: Number) -> Number:
        """Return the larger of two float32, passing over a NaN."""

    def exp2(self, x: Number) -> Number:
        """Return ex2.approx.ftz: exact at 0 and the infinities, elsewhere to 2^-22.5."""

    def log2(self, x: Number) -> Number:
        """Return lg2.approx.ftz, to 2^-22; -inf at 0."""

    def reciprocal(self, x: Number) -> Number:
        """Return rcp.approx.ftz, to one unit in the last place."""

    def shuffle(self, x: Number, mask: int) -> Number:
        """Return a float32 of the lane whose number differs by ``mask``."""

    def bits(self, x: Number) -> Number:
        """Return the word that a float32 is."""

    def of_bits(self, x: Number) -> Number:
        """Return the float32 that a word is."""

    def tf32(self, x: Number) -> Number:
        """Return a float32 rounded to TF32, to nearest and ties away: cvt.rna.tf32, as a word."""

    def pack(self, low: Number, high: Number) -> Number:
        """Return two float32 rounded to the variant's 16-bit dtype, as a word."""

    def multiply(self, a: State, b: State, c: State) -> State:
        """Return a (16, k) @ b (k, 8) + c (16, 8): mma.sync m16n8k16, of TF32 m16n8k8.

        Fragments of a warp, as the PTX ISA lays them out: 4 and 2 words, 4 float32. Of a word of
        TF32 the last 13 bits count for nothing.
        """

    def load_matrices(self, address: Number, *, transposed: bool) -> State:
        """Return four 8 x 8 matrices of 16 bits from shared memory: ldmatrix, x4.

        Lane 8 i + r gives the address of row r of matrix i.
        """

    def copy(self, shared: Number, address: Number, visible: Number) -> None:
        """Begin to copy 16 bytes from global to shared memory, zeros where not ``visible``.

        A chip before 8.0 has done it when it goes on.
        """

    def commit(self) -> None:
        """Close a group of copies."""

    def wait(self, groups: int) -> None:
        """Wait until at most ``groups`` groups of this thread's copies are under way."""

    def barrier(self) -> None:
        """Wait for all threads of the block; what they wrote to shared memory can be read."""

    def barrier_any(self, condition: Number) -> Number:
        """Do as `barrier` and return whether the condition held in any thread."""

    def warp_barrier(self) -> None:
        """Wait for the threads of the warp; the compiler moves no load from below to above it."""

    def load_shared(self, address: Number) -> State:
        """Return 16 bytes of shared memory, four words."""

    def load_shared_floats(self, address: Number) -> State:
        """Return 16 bytes of shared memory, four float32."""

    def load_pair(self, address: Number) -> State:
        """Return 8 bytes of shared memory, two words."""

    def load_word(self, address: Number) -> Number:
        """Return 4 bytes of shared memory."""

    def store_shared(self, address: Number, words: State) -> None:
        """Write one, two or four words or float32 to shared memory."""

    def load_int64(self, address: Number) -> Number:
        """Return an int64 of global memory."""

    def load_float32(self, address: Number) -> Number:
        """Return a float32 of global memory."""

    def load_floats(self, address: Number) -> State:
        """Return 16 bytes of global memory, four float32."""

    def load_bool(self, address: Number) -> Number:
        """Return a byte of global memory, whether it is not 0."""

    def store_words(self, address: Number, words: State, when: Number) -> None:
        """Write four words or float32 to global memory, in the threads where ``when`` holds."""

    def store_float32(self, address: Number, x: Number, when: Number) -> None:
        """Write a float32 to global memory in the threads where ``when`` holds."""

    def modify(self, score: Number, b: Number, h: Number, t: Number, s: Number) -> Number:
        """Return what the caller's ``score_mod`` makes of a score."""

    def anew(self) -> None:
        """Compute what depends on ``thread`` or ``block`` again, rather than hold it till now.

        A turn of a loop and a branch do so by themselves for ``thread``.
        """

    def loop(
        self, first: Number, past: Number, state: State, body: Callable[[Number, State], State]
    ) -> State:
        """Run ``body(i, state) -> state`` for first <= i < past; return the last state."""

    def choose(
        self,
        condition: Number,
        state: State,
        then: Callable[[State], State],
        otherwise: Callable[[State], State] = lambda state: state,
    ) -> State:
        """Return ``then(state)`` or ``otherwise(state)``; one of them runs, in all threads."""


def lane_of(m: Machine) -> Number:
    """Return this thread's place in its warp."""
    return m.thread & (WARP - 1)


def warp_of(m: Machine) -> Number:
    """Return this thread's warp."""
    return m.thread >> 5
