"""Loops, written as LLVM IR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from mhakit.backends.cpu.simd.emitter import LINE

__all__ = ["loop"]


def loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    carried: list[ir.Value],
    body: Callable[[list[ir.Value]], list[ir.Value]],
    *,
    aligned: bool = False,
) -> list[ir.Value]:
    """Emit ``count`` turns of ``body``, which maps the carried values to their next ones.

    LLVM is asked not to unroll it: no loop here was faster unrolled, and all compile for longer.
    An ``aligned`` one begins where a line of code does, so that a CPU decodes it from no more
    lines than it must: what is busy in every turn is then as fast wherever it comes to lie.
    """
    entry = builder.block
    head, turn, done = (builder.append_basic_block(name) for name in ("head", "turn", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    left = builder.phi(count.type)
    left.add_incoming(count, entry)
    phis = []
    for value in carried:
        phi = builder.phi(value.type)
        phi.add_incoming(value, entry)
        phis.append(phi)
    builder.cbranch(builder.icmp_signed(">", left, ir.Constant(count.type, 0)), turn, done)
    builder.position_at_end(turn)
    following = body(list(phis))
    left.add_incoming(builder.sub(left, ir.Constant(count.type, 1)), builder.block)
    for phi, value in zip(phis, following, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head).set_metadata("llvm.loop", _as_written(builder.module, aligned))
    builder.position_at_end(done)
    return phis


def _as_written(module: ir.Module, aligned: bool) -> ir.MDValue:
    rules: list[tuple[Any, ...]] = [("llvm.loop.unroll.disable",)]
    if aligned:
        rules.append(("llvm.loop.align", ir.Constant(ir.IntType(32), LINE)))
    nodes = [
        module.add_metadata([ir.MetaDataString(module, name), *values]) for name, *values in rules
    ]
    mark = ir.MDValue(module, [], name=str(len(module.metadata)))
    mark.operands = (mark, *nodes)  # by naming itself it is this loop's alone
    return mark
