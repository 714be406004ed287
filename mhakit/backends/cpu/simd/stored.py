"""Numbers as memory holds them, which is known at run time only, so that one kernel serves all."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from mhakit.backends.cpu.simd.emitter import INT64, Emitter
from mhakit.backends.cpu.storage import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64

__all__ = ["Stored", "by_kind"]


class Stored:
    """Loads and stores numbers as they are stored in memory, in the type of the emitter."""

    def __init__(self, kind: int, emit: Emitter) -> None:
        self.kind, self.emit, self.builder = kind, emit, emit.builder
        stored = {FLOAT16: ir.HalfType(), BFLOAT16: ir.IntType(16), BOOL: ir.IntType(8)}
        element = stored.get(kind, emit.element)
        self.type = ir.VectorType(element, emit.lanes) if emit.lanes else element

    def load(self, address: ir.Value) -> ir.Value:
        """Return what lies there, widened; of a bool 1 or 0."""
        builder, emit = self.builder, self.emit
        value = builder.load(builder.inttoptr(address, self.type.as_pointer()), align=1)
        if self.kind == FLOAT16:
            return builder.fpext(value, emit.type)
        if self.kind == BFLOAT16:
            wide = builder.shl(builder.zext(value, emit.int_type), emit.integer(16))
            return builder.bitcast(wide, emit.type)
        if self.kind == BOOL:
            zero = ir.Constant(value.type, None)
            return builder.uitofp(builder.icmp_unsigned("!=", value, zero), emit.type)
        return value

    def store(self, value: ir.Value, address: ir.Value) -> None:
        """Write a value there, rounded once to nearest, ties to even."""
        builder = self.builder
        if self.kind == FLOAT16:
            value = builder.fptrunc(value, self.type)
        elif self.kind == BFLOAT16:
            value = self._narrow(value)
        builder.store(value, builder.inttoptr(address, self.type.as_pointer()), align=1)

    def _narrow(self, value: ir.Value) -> ir.Value:
        builder, emit = self.builder, self.emit
        bits = builder.bitcast(value, emit.int_type)
        odd = builder.and_(builder.lshr(bits, emit.integer(16)), emit.integer(1))
        rounded = builder.lshr(
            builder.add(bits, builder.add(odd, emit.integer(0x7FFF))), emit.integer(16)
        )
        quiet = builder.or_(builder.lshr(bits, emit.integer(16)), emit.integer(0x40))
        is_nan = builder.fcmp_unordered("uno", value, value)
        return builder.trunc(builder.select(is_nan, quiet, rounded), self.type)


def by_kind(
    kind: ir.Value, emit: Emitter, body: Callable[[Stored], list[ir.Value]], *, bools: bool
) -> list[ir.Value]:
    """Emit ``body`` for every way that numbers may be stored, and a switch on ``kind``."""
    builder = emit.builder
    kinds = [FLOAT64] if emit.double else [FLOAT32, FLOAT16, BFLOAT16]
    kinds += [BOOL] if bools else []
    joined = builder.append_basic_block("joined")
    arms = [builder.append_basic_block("stored") for _ in kinds]
    switch = builder.switch(kind, arms[0])
    results = []
    for stored, arm in zip(kinds, arms, strict=True):
        if stored != kinds[0]:
            switch.add_case(ir.Constant(INT64, stored), arm)
        builder.position_at_end(arm)
        results.append((body(Stored(stored, emit)), builder.block))
        builder.branch(joined)
    builder.position_at_end(joined)
    phis = []
    for values in zip(*(values for values, _ in results), strict=True):
        phi = builder.phi(values[0].type)
        for value, (_, block) in zip(values, results, strict=True):
            phi.add_incoming(value, block)
        phis.append(phi)
    return phis
