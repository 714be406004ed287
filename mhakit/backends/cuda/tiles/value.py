"""A number in a register, as the emitting machine knows it."""

from __future__ import annotations

from llvmlite import ir

from mhakit.backends.cuda.tiles.machine import Number

__all__ = ["BOOL", "FLOAT", "INT32", "INT64", "TYPES", "Value"]

BOOL, INT32, INT64, FLOAT = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()
TYPES = {"bool": BOOL, "int32": INT32, "word": INT32, "int64": INT64, "float32": FLOAT}


class Value:
    """A number in a register, with Python's operators."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, builder: ir.IRBuilder, kind: str, value: ir.Value) -> None:
        self.builder, self.kind, self.ir = builder, kind, value

    def like(self, other: Number) -> ir.Value:
        """Return the other operand, which is a Python number or of the same type."""
        if isinstance(other, Value):
            if other.kind != self.kind:
                raise TypeError(f"both numbers must be {self.kind}, got {other.kind}")
            return other.ir
        return ir.Constant(TYPES[self.kind], other)

    def _with(self, other: Number, integer: str, real: str, swapped: bool = False) -> Value:
        a, b = self.ir, self.like(other)
        name = real if self.kind == "float32" else integer
        return Value(
            self.builder, self.kind, getattr(self.builder, name)(*((b, a) if swapped else (a, b)))
        )

    def __add__(self, other: Number) -> Value:
        return self._with(other, "add", "fadd")

    def __sub__(self, other: Number) -> Value:
        return self._with(other, "sub", "fsub")

    def __rsub__(self, other: Number) -> Value:
        return self._with(other, "sub", "fsub", swapped=True)

    def __mul__(self, other: Number) -> Value:
        return self._with(other, "mul", "fmul")

    def __floordiv__(self, other: Number) -> Value:
        return self._with(other, "udiv", "none")

    def __mod__(self, other: Number) -> Value:
        return self._with(other, "urem", "none")

    def __and__(self, other: Number) -> Value:
        return self._with(other, "and_", "none")

    def __or__(self, other: Number) -> Value:
        return self._with(other, "or_", "none")

    def __xor__(self, other: Number) -> Value:
        return self._with(other, "xor", "none")

    def __lshift__(self, other: Number) -> Value:
        return self._with(other, "shl", "none")

    def __rshift__(self, other: Number) -> Value:
        return self._with(other, "lshr", "none")

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Value:
        return -0.0 - self  # the LLVM of NVVM has no fneg

    def _compare(self, operator: str, other: Number) -> Value:
        b, emit = self.like(other), self.builder
        if self.kind == "float32":
            ordered = emit.fcmp_unordered if operator == "!=" else emit.fcmp_ordered
            return Value(emit, "bool", ordered(operator, self.ir, b))
        integer = emit.icmp_unsigned if self.kind == "word" else emit.icmp_signed
        return Value(emit, "bool", integer(operator, self.ir, b))

    def __lt__(self, other: Number) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Number) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Number) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Number) -> Value:
        return self._compare(">=", other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return self._compare("!=", other)
