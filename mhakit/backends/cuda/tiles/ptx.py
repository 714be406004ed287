"""The machine that emits: one thread's instructions, as LLVM IR and inline PTX."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from mhakit.backends.cuda.tiles.fields import FLOATS, INTEGERS
from mhakit.backends.cuda.tiles.flow import Flow
from mhakit.backends.cuda.tiles.machine import Number, State
from mhakit.backends.cuda.tiles.value import FLOAT, INT32, INT64, TYPES, Value

__all__ = ["Ptx"]

_LETTERS = {"int32": "r", "word": "r", "int64": "l", "float32": "f"}


class Ptx(Flow):
    """Emits a kernel where a builder stands; see `mhakit.backends.cuda.tiles.machine.Machine`.

    Its loops and branches are `Flow`'s.
    """

    def __init__(
        self,
        builder: ir.IRBuilder,
        dtype: str,
        integers: list[ir.Value],
        floats: list[ir.Value],
        modify: Callable[..., ir.Value] | None = None,
        *,
        asynchronous: bool = True,
    ) -> None:
        super().__init__(builder)
        self._asynchronous = asynchronous
        self.half = {"bfloat16": "bf16", "float16": "f16"}.get(dtype)
        self._shape, self._kind = ("m16n8k16", self.half) if self.half else ("m16n8k8", "tf32")
        self._fields = {
            **{n: self._value("int64", x) for n, x in zip(INTEGERS, integers, strict=True)},
            **{n: self._value("float32", x) for n, x in zip(FLOATS, floats, strict=True)},
        }
        self._modify = modify
        self.thread = self._special("tid.x")
        self.block = self._special("ctaid.x")
        self.shared = self._value("int32", self._shared_base())

    def _special(self, register: str) -> Value:
        name = f"llvm.nvvm.read.ptx.sreg.{register}"
        return self._value("int32", self._call(name, INT32, []))

    def _shared_base(self) -> ir.Value:
        name = "mhakit_tiles"
        module = self.builder.module
        if name not in module.globals:
            array = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), 0), name, addrspace=3)
            array.align, array.linkage = 128, "external"
        return self.builder.ptrtoint(module.globals[name], INT32)

    def _call(self, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
        module = self.builder.module
        kind = ir.FunctionType(result, [a.type for a in args])
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, args)

    def _asm(
        self, text: str, results: list[str], args: list[Number], *, pure: bool = False
    ) -> list[Value]:
        """Emit one line of PTX; $0 and so on are the results, then the arguments."""
        letters = ["=" + _LETTERS[kind] for kind in results] + [_LETTERS[a.kind] for a in args]
        types = [TYPES[kind] for kind in results]
        result = ir.VoidType() if not types else types[0]
        if len(types) > 1:
            result = ir.LiteralStructType(types)
        kind = ir.FunctionType(result, [a.ir.type for a in args])
        constraints = ",".join(letters if pure else [*letters, "~{memory}"])
        asm = ir.InlineAsm(kind, text, constraints, side_effect=not pure)
        out = self.builder.call(asm, [a.ir for a in args], attrs=() if pure else ("convergent",))
        if len(types) > 1:
            return [
                self._value(kind, self.builder.extract_value(out, i))
                for i, kind in enumerate(results)
            ]
        return [self._value(kind, out) for kind in results]

    # numbers

    def field(self, name: str) -> Value:
        return self._fields[name]

    def int32(self, x: Number) -> Value:
        if not isinstance(x, Value):
            return self._value("int32", ir.Constant(INT32, x))
        if x.kind == "float32":
            return self._value("int32", self.builder.fptosi(x.ir, INT32))
        return self._value("int32", self.builder.trunc(x.ir, INT32) if x.kind == "int64" else x.ir)

    def int64(self, x: Number) -> Value:
        if not isinstance(x, Value):
            return self._value("int64", ir.Constant(INT64, x))
        return self._value("int64", x.ir if x.kind == "int64" else self.builder.sext(x.ir, INT64))

    def word(self, x: Number) -> Value:
        if not isinstance(x, Value):
            return self._value("word", ir.Constant(INT32, x))
        return self._value("word", self.builder.zext(x.ir, INT32) if x.kind == "bool" else x.ir)

    def float32(self, x: Number) -> Value:
        if not isinstance(x, Value):
            return self._value("float32", ir.Constant(FLOAT, float(x)))
        cast = self.builder.uitofp if x.kind == "bool" else self.builder.sitofp
        return self._value("float32", cast(x.ir, FLOAT))

    def select(self, condition: Number, then: Number, otherwise: Number) -> Value:
        typed = then if isinstance(then, Value) else otherwise
        a, b = typed.like(then), typed.like(otherwise)
        return self._value(typed.kind, self.builder.select(condition.ir, a, b))

    def fma(self, a: Number, b: Number, c: Number) -> Value:
        typed = a if isinstance(a, Value) else b
        args = [typed.like(x) for x in (a, b, c)]
        return self._value("float32", self._call("llvm.fma.f32", FLOAT, args))

    def _unary(self, name: str, x: Number) -> Value:
        return self._asm(f"{name}.approx.ftz.f32 $0, $1;", ["float32"], [x], pure=True)[0]

    def maximum(self, a: Number, b: Number) -> Value:
        return self._asm("max.f32 $0, $1, $2;", ["float32"], [a, b], pure=True)[0]

    def exp2(self, x: Number) -> Value:
        return self._unary("ex2", x)

    def log2(self, x: Number) -> Value:
        return self._unary("lg2", x)

    def reciprocal(self, x: Number) -> Value:
        return self._unary("rcp", x)

    def shuffle(self, x: Number, mask: int) -> Value:
        text = f"shfl.sync.bfly.b32 $0, $1, {mask}, 31, 0xffffffff;"
        return self._asm(text, ["float32"], [x])[0]

    def bits(self, x: Number) -> Value:
        return self._value("word", self.builder.bitcast(x.ir, INT32))

    def of_bits(self, x: Number) -> Value:
        return self._value("float32", self.builder.bitcast(x.ir, FLOAT))

    def tf32(self, x: Number) -> Value:
        return self._asm("cvt.rna.tf32.f32 $0, $1;", ["word"], [x], pure=True)[0]

    # tiles

    def pack(self, low: Number, high: Number) -> Value:
        text = f"cvt.rn.{self.half}x2.f32 $0, $1, $2;"
        return self._asm(text, ["word"], [high, low], pure=True)[0]

    def multiply(self, a: State, b: State, c: State) -> State:
        text = (
            f"mma.sync.aligned.{self._shape}.row.col.f32.{self._kind}.{self._kind}.f32 "
            "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        )
        return self._asm(text, ["float32"] * 4, [*a, *b, *c], pure=True)

    def load_matrices(self, address: Number, *, transposed: bool) -> State:
        turn = ".trans" if transposed else ""
        text = f"ldmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 {{$0, $1, $2, $3}}, [$4];"
        return self._asm(text, ["word"] * 4, [self.shared + address])

    def copy(self, shared: Number, address: Number, visible: Number) -> None:
        size = self.select(visible, self.int32(16), self.int32(0))
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        if not self._asynchronous:
            text = (
                "{ .reg .pred %p; .reg .b32 %a, %b, %c, %d; setp.ne.s32 %p, $2, 0; "
                "mov.b32 %a, 0; mov.b32 %b, 0; mov.b32 %c, 0; mov.b32 %d, 0; "
                "@%p ld.global.v4.b32 {%a, %b, %c, %d}, [$1]; "
                "st.shared.v4.b32 [$0], {%a, %b, %c, %d}; }"
            )
        self._asm(text, [], [self.shared + shared, address, size])

    def commit(self) -> None:
        if self._asynchronous:
            self._asm("cp.async.commit_group;", [], [])

    def wait(self, groups: int) -> None:
        if self._asynchronous:
            self._asm(f"cp.async.wait_group {groups};", [], [])

    def barrier(self) -> None:
        self._asm("bar.sync 0;", [], [])

    def barrier_any(self, condition: Number) -> Value:
        text = (
            "{ .reg .pred %p, %q; setp.ne.u32 %p, $1, 0; bar.red.or.pred %q, 0, %p; "
            "selp.u32 $0, 1, 0, %q; }"
        )
        return self._asm(text, ["word"], [self.word(condition)])[0] != 0

    def warp_barrier(self) -> None:
        self._asm("bar.warp.sync 0xffffffff;", [], [])

    # memory

    def load_shared(self, address: Number) -> State:
        text = "ld.shared.v4.b32 {$0, $1, $2, $3}, [$4];"
        return self._asm(text, ["word"] * 4, [self.shared + address])

    def load_shared_floats(self, address: Number) -> State:
        text = "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];"
        return self._asm(text, ["float32"] * 4, [self.shared + address])

    def load_pair(self, address: Number) -> State:
        text = "ld.shared.v2.b32 {$0, $1}, [$2];"
        return self._asm(text, ["word"] * 2, [self.shared + address])

    def load_word(self, address: Number) -> Value:
        return self._asm("ld.shared.b32 $0, [$1];", ["word"], [self.shared + address])[0]

    def store_shared(self, address: Number, words: State) -> None:
        at, numbers = self.shared + address, ", ".join(f"${i + 1}" for i in range(len(words)))
        if len(words) == 1:
            self._asm(f"st.shared.b32 [$0], {numbers};", [], [at, *words])
        else:
            self._asm(f"st.shared.v{len(words)}.b32 [$0], {{{numbers}}};", [], [at, *words])

    def load_int64(self, address: Number) -> Value:
        return self._asm("ld.global.b64 $0, [$1];", ["int64"], [address])[0]

    def load_float32(self, address: Number) -> Value:
        return self._asm("ld.global.f32 $0, [$1];", ["float32"], [address])[0]

    def load_floats(self, address: Number) -> State:
        text = "ld.global.v4.f32 {$0, $1, $2, $3}, [$4];"
        return self._asm(text, ["float32"] * 4, [address])

    def load_bool(self, address: Number) -> Value:
        return self._asm("ld.global.u8 $0, [$1];", ["word"], [address])[0] != 0

    def _store(self, text: str, args: list[Number], when: Number) -> None:
        guard = f"{{ .reg .pred %p; setp.ne.u32 %p, ${len(args)}, 0; @%p {text} }}"
        self._asm(guard, [], [*args, self.word(when)])

    def store_words(self, address: Number, words: State, when: Number) -> None:
        self._store("st.global.v4.b32 [$0], {$1, $2, $3, $4};", [address, *words], when)

    def store_float32(self, address: Number, x: Number, when: Number) -> None:
        self._store("st.global.f32 [$0], $1;", [address, x], when)

    def modify(self, score: Number, b: Number, h: Number, t: Number, s: Number) -> Value:
        assert self._modify is not None
        return self._value("float32", self._modify(*(x.ir for x in (score, b, h, t, s))))

    # control

    def renewed(self, x: Value) -> Value:
        return self._asm("mov.b32 $0, $1;", ["int32"], [x])[0]
