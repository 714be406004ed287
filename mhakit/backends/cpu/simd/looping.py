"""Loops, written as LLVM IR."""

from __future__ import annotations

from collections.abc import Callable

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
    back = builder.branch(head)
    if aligned:
        back.set_metadata("llvm.loop", _aligned(builder.module))
    builder.position_at_end(done)
    return phis


def _aligned(module: ir.Module) -> ir.MDValue:
    name = ir.MetaDataString(module, "llvm.loop.align")
    rule = module.add_metadata([name, ir.Constant(ir.IntType(32), LINE)])
    mark = ir.MDValue(module, [], name=str(len(module.metadata)))
    mark.operands = (mark, rule)  # by naming itself it is this loop's alone
    return mark
