"""Loops and branches of the machine that emits: LLVM's blocks, and what passes between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir

from mhakit.backends.cuda.tiles.machine import Number, State
from mhakit.backends.cuda.tiles.value import INT32, Value

__all__ = ["Flow"]


class Flow(ABC):
    """Emits `loop` and `choose`; see `mhakit.backends.cuda.tiles.machine.Machine`."""

    thread: Value
    block: Value

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def _value(self, kind: str, value: ir.Value) -> Value:
        return Value(self.builder, kind, value)

    @abstractmethod
    def renewed(self, x: Value) -> Value:
        """Return an int32 as a number that LLVM takes for a new one."""

    def anew(self) -> None:
        self.thread, self.block = self.renewed(self.thread), self.renewed(self.block)

    def loop(
        self, first: Number, past: Number, state: State, body: Callable[[Number, State], State]
    ) -> State:
        emit = self.builder
        before = emit.block
        begin, end = emit.append_basic_block("loop"), emit.append_basic_block("end")
        emit.cbranch((first < past).ir, begin, end)
        emit.position_at_end(begin)
        index = emit.phi(INT32)
        index.add_incoming(first.ir, before)
        entering = list(_leaves(state))
        inside = [emit.phi(x.ir.type) for x in entering]
        for phi, x in zip(inside, entering, strict=True):
            phi.add_incoming(x.ir, before)
        i = self._value("int32", index)
        carried = _rebuild(state, iter(self._named(inside, entering)))
        leaving = list(_leaves(self._apart(lambda: body(i, carried))))
        following = i + 1
        last = emit.block
        index.add_incoming(following.ir, last)
        for phi, x in zip(inside, leaving, strict=True):
            phi.add_incoming(x.ir, last)
        emit.cbranch((following < past).ir, begin, end)
        emit.position_at_end(end)
        return self._merge(state, [(before, entering), (last, leaving)])

    def choose(
        self,
        condition: Number,
        state: State,
        then: Callable[[State], State],
        otherwise: Callable[[State], State] = lambda state: state,
    ) -> State:
        emit = self.builder
        yes, no = emit.append_basic_block("yes"), emit.append_basic_block("no")
        end = emit.append_basic_block("end")
        emit.cbranch(condition.ir, yes, no)
        results = []
        for block, body in ((yes, then), (no, otherwise)):
            emit.position_at_end(block)
            leaving = list(_leaves(self._apart(lambda: body(state))))  # noqa: B023
            results.append((emit.block, leaving))
            emit.branch(end)
        emit.position_at_end(end)
        return self._merge(state, results)

    def _apart(self, body: Callable[[], State]) -> State:
        """Run a branch or a turn with a ``thread`` of its own, `renewed`.

        What depends on it is computed where it is used: hoisted, the addresses of all branches
        would hold more registers than a thread has.
        """
        outside = self.thread, self.block
        self.thread = self.renewed(self.thread)
        state = body()
        self.thread, self.block = outside
        return state

    def _named(self, values: list[ir.Value], like: list[Value]) -> list[Value]:
        return [self._value(x.kind, value) for value, x in zip(values, like, strict=True)]

    def _merge(self, state: State, results: list[tuple[ir.Block, list[Value]]]) -> State:
        """Return the state after two ways to this block have met."""
        like = results[0][1]
        phis = [self.builder.phi(x.ir.type) for x in like]
        for block, leaving in results:
            for phi, x in zip(phis, leaving, strict=True):
                phi.add_incoming(x.ir, block)
        rebuilt: State = _rebuild(state, iter(self._named(phis, like)))
        return rebuilt


def _leaves(state: Any) -> Iterator[Value]:
    """Yield the numbers of nested lists."""
    if isinstance(state, list):
        for part in state:
            yield from _leaves(part)
    else:
        yield state


def _rebuild(state: Any, values: Iterator[Value]) -> Any:
    """Return nested lists of the same shape with other numbers."""
    if isinstance(state, list):
        return [_rebuild(part, values) for part in state]
    return next(values)
