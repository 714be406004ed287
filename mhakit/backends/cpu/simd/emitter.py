"""Arithmetic on vector registers, written as LLVM IR: what the intrinsics beside it are made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types

__all__ = ["INT64", "LEAST_BYTES", "LINE", "VECTOR_BYTES", "Emitter"]


def vector_bytes() -> int:
    """Bytes of one register; MHAKIT_VECTOR_BYTES asks for a narrower one than the CPU has."""
    features = llvm.get_host_cpu_features()
    width = 64 if features.get("avx512f") else 32 if features.get("avx2") else 16
    return min(width, int(os.environ.get("MHAKIT_VECTOR_BYTES", width)))


VECTOR_BYTES = vector_bytes()
LEAST_BYTES = 16 if VECTOR_BYTES == 64 else VECTOR_BYTES
"""The part of a register that a tile may end with: a quarter of a wide one, or a whole one."""

LINE = 64
"""Bytes of a cache's line."""

INT64 = ir.IntType(64)
_INT32 = ir.IntType(32)

# (2**f - 1) / f on [-0.5, 0.5], highest power first: near-minimax, relative error of the whole
# below 2e-8 and 2e-17
_EXP2 = {
    "float": (
        0.00015453162965003530993,
        0.0013390863387636358398,
        0.0096180825572405753014,
        0.055503571141760241841,
        0.24022650760568204586,
        0.69314718802623774808,
    ),
    "double": (
        4.4549606019592227679e-10,
        7.0725859563471231203e-9,
        1.0178062445826910332e-7,
        1.3215442587886300878e-6,
        0.000015252733829836149341,
        0.00015403530441736108213,
        0.0013333558146416935292,
        0.0096181291076068884927,
        0.055504108664821594339,
        0.2402265069591009822,
        0.69314718055994530942,
    ),
}


class Emitter:
    """Arithmetic on ``size`` bytes of numbers of one float type, or on a scalar, as LLVM IR."""

    def __init__(self, builder: ir.IRBuilder, real: Any, size: int = VECTOR_BYTES) -> None:
        self.builder, self.size = builder, size
        self.double = real == types.float64
        self.element = ir.DoubleType() if self.double else ir.FloatType()
        self.bits = ir.IntType(64 if self.double else 32)
        self.item = 8 if self.double else 4
        self.lanes = size // self.item
        self.type = ir.VectorType(self.element, self.lanes) if size else self.element
        self.int_type = ir.VectorType(self.bits, self.lanes) if size else self.bits
        self.least = -1022.0 if self.double else -126.0
        """The power of two that is the smallest normal number."""

    def number(self, value: float) -> ir.Constant:
        """Return ``value`` in every lane."""
        return ir.Constant(self.type, [value] * self.lanes if self.lanes else value)

    def integer(self, value: int) -> ir.Constant:
        """Return the bits ``value`` in every lane."""
        value &= 2**self.bits.width - 1
        return ir.Constant(self.int_type, [value] * self.lanes if self.lanes else value)

    def _call(self, name: str, *operands: ir.Value) -> ir.Value:
        # Module.declare_intrinsic knows no vector types
        short = f"f{self.bits.width}"
        full = f"llvm.{name}.{f'v{self.lanes}{short}' if self.lanes else short}"
        kind = ir.FunctionType(self.type, [self.type] * len(operands))
        function = self.builder.module.globals.get(full) or ir.Function(
            self.builder.module, kind, full
        )
        return self.builder.call(function, operands)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a * b + c, rounded once."""
        return self._call("fma", a, b, c)

    def fma_seen(self, seen: ir.Value, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a * b + c where ``seen``, and c, bit for bit, where it is not and b is -0.0."""
        if VECTOR_BYTES == 64:  # an instruction that leaves lanes out
            return self.builder.select(seen, self.fma(a, b, c), c)
        # 0 * -0.0 added to c is c, and the sum waits for nothing but its own last one
        bits = self.builder.bitcast(a, self.int_type)
        bits = self.builder.and_(bits, self.builder.sext(seen, self.int_type))
        return self.fma(self.builder.bitcast(bits, self.type), b, c)

    def load(self, address: ir.Value) -> ir.Value:
        """Return what lies at an aligned address."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        return self.builder.load(pointer, align=self.size)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        """Write to an aligned address."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        self.builder.store(value, pointer, align=self.size)

    def fetch(self, address: ir.Value) -> None:
        """Ask for the cache line at an address, which may be anywhere and is not waited for."""
        pointer, number = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        name = "llvm.prefetch.p0"
        function = self.builder.module.globals.get(name) or ir.Function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, number, number, number]),
            name,
        )
        to_read, to_the_nearest_cache, data = (ir.Constant(number, i) for i in (0, 3, 1))
        place = self.builder.inttoptr(address, pointer)
        self.builder.call(function, [place, to_read, to_the_nearest_cache, data])

    def store_anywhere(self, value: ir.Value, address: ir.Value) -> None:
        """Write to an address of any alignment."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        self.builder.store(value, pointer, align=1)

    def across(self, vector: ir.Value, join: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """Return one number of all lanes, as a tree of neighbours, then of pairs, and so on."""
        width = 1
        while width < self.lanes:
            swapped = [lane ^ width for lane in range(self.lanes)]
            mask = ir.Constant(ir.VectorType(_INT32, self.lanes), swapped)
            vector = join(vector, self.builder.shuffle_vector(vector, vector, mask))
            width *= 2
        return self.builder.extract_element(vector, ir.Constant(_INT32, 0))

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a where it is larger than b, else b: a NaN in a is passed over."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return a where it is smaller than b, else b: a NaN in a is passed over."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def larger_size(self, number: ir.Value, most: ir.Value) -> ir.Value:
        """Return the bits of the larger of |number| and what ``most`` has; NaN is above inf."""
        all_but_sign = self.integer((1 << (self.bits.width - 1)) - 1)
        bits = self.builder.and_(self.builder.bitcast(number, self.int_type), all_but_sign)
        return self.builder.select(self.builder.icmp_signed(">", bits, most), bits, most)

    def is_infinite(self, size: ir.Value) -> ir.Value:
        """Return whether bits as `larger_size` returns them are of no finite number."""
        infinity = 0x7FF0000000000000 if self.double else 0x7F800000
        return self.builder.icmp_signed(">=", size, self.integer(infinity))

    def anywhere(self, flags: ir.Value) -> ir.Value:
        """Return whether a flag of any lane is set."""
        if not self.lanes:
            return flags
        packed = self.builder.bitcast(flags, ir.IntType(self.lanes))
        return self.builder.icmp_unsigned("!=", packed, ir.Constant(packed.type, 0))

    def weights(
        self,
        scores: list[ir.Value],
        bases: list[ir.Value],
        factor: ir.Value | None = None,
        *,
        plain: bool = False,
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Return exp2((score - base) * factor), -0.0 where the score is -inf, and where it is.

        Where they are ``plain`` no score is -inf and no weight is below the normal numbers, and
        nobody asks.
        """
        builder = self.builder
        below = [builder.fsub(score, base) for score, base in zip(scores, bases, strict=True)]
        if factor is not None:
            below = [builder.fmul(x, factor) for x in below]
        weights = self.exp2(below, normal=plain)
        if plain:
            return weights, []
        none = self.number(float("-inf"))
        hides = [builder.fcmp_ordered("==", score, none) for score in scores]
        hidden = self.number(-0.0)
        return [
            builder.select(hide, hidden, weight)
            for hide, weight in zip(hides, weights, strict=True)
        ], hides

    def load_anywhere(self, address: ir.Value) -> ir.Value:
        """Return what lies at an address of any alignment."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        return self.builder.load(pointer, align=1)

    def splat(self, address: ir.Value) -> ir.Value:
        """Every lane the number at ``address``, wherever it lies."""
        pointer = self.builder.inttoptr(address, self.element.as_pointer())
        return self.spread(self.builder.load(pointer, align=1))

    def spread(self, number: ir.Value) -> ir.Value:
        """Every lane this number."""
        empty = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(_INT32, 0))
        zeros = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, zeros)

    def is_not_hidden(self, weight: ir.Value) -> ir.Value:
        """Whether the weight is any number but -0.0, which marks a hidden source."""
        mark = self.integer(1 << (self.bits.width - 1))
        return self.builder.icmp_unsigned("!=", self.builder.bitcast(weight, self.int_type), mark)

    def _power(self, xs: list[ir.Value]) -> tuple[list[ir.Value], list[ir.Value], list[ir.Value]]:
        """Return 2**n, p and f with x = n + f, n whole, and 2**f = 1 + p * f, for each x.

        NaN stays NaN, no integer is made. Each step is taken for all of them: a CPU that waits
        for one has the others at hand.
        """
        builder = self.builder
        mantissa, exponent_bias = (52, 1023) if self.double else (23, 127)
        # adding it rounds to whole and keeps n and the exponent's bias in the low bits
        shifter = self.number(1.5 * 2.0**mantissa + exponent_bias)
        shifted = [builder.fadd(x, shifter) for x in xs]
        whole = [builder.fsub(s, shifter) for s in shifted]
        fs = [builder.fsub(x, n) for x, n in zip(xs, whole, strict=True)]
        first, *others = _EXP2["double" if self.double else "float"]
        totals: list[ir.Value] = [self.number(first)] * len(xs)
        for coefficient in others:
            number = self.number(coefficient)
            totals = [self.fma(total, f, number) for total, f in zip(totals, fs, strict=True)]
        powers = []
        for s in shifted:
            bits = builder.shl(builder.bitcast(s, self.int_type), self.integer(mantissa))
            powers.append(builder.bitcast(bits, self.type))
        return powers, totals, fs

    def exp2(self, xs: list[ir.Value], *, normal: bool = False) -> list[ir.Value]:
        """2**x for each x up to 126 (1022), exactly 0 below the normal numbers; exp2(0) is 1.

        ``normal`` promises that no result is below them.
        """
        builder, one = self.builder, self.number(1.0)
        powers, totals, fs = self._power(xs)
        values = [self.fma(total, f, one) for total, f in zip(totals, fs, strict=True)]
        values = [builder.fmul(power, value) for power, value in zip(powers, values, strict=True)]
        if normal:
            return values
        least, zero = self.number(self.least), self.number(0.0)
        return [
            builder.select(builder.fcmp_ordered("<", x, least), zero, value)
            for x, value in zip(xs, values, strict=True)
        ]

    def tanh(self, x: ir.Value) -> ir.Value:
        """(e^2|x| - 1) / (e^2|x| + 1) with the sign of x; small x keeps its relative precision."""
        builder = self.builder
        sign = self.integer(1 << (self.bits.width - 1))
        bits = builder.bitcast(x, self.int_type)
        size = builder.bitcast(builder.and_(bits, builder.not_(sign)), self.type)
        y = builder.fmul(size, self.number(2.8853900817779268147))
        top = self.number(60.0)  # from here on tanh is 1 in either dtype
        y = builder.select(builder.fcmp_ordered(">", y, top), top, y)
        (power,), (total,), (f,) = self._power([y])
        rest = builder.fmul(total, f)
        minus_one = self.fma(power, rest, builder.fsub(power, self.number(1.0)))
        ratio = builder.fdiv(minus_one, builder.fadd(minus_one, self.number(2.0)))
        signed = builder.or_(builder.bitcast(ratio, self.int_type), builder.and_(bits, sign))
        return builder.bitcast(signed, self.type)
