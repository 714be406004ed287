"""Compile tile kernels without a GPU, by the route that Numba's compiler takes with one.

NVVM makes LTO-IR, nvJitLink machine code; its log tells registers, stack and spills. The PTX
tells which instructions there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mhakit.backends.cuda.tiles.kernels import AnyVariant
from mhakit.backends.cuda.tiles.segments import Decoding, Merging
from mhakit.backends.cuda.tiles.variant import Variant
from mhakit.errors import MissingExtra

__all__ = ["Report", "capabilities_of", "compile_variant", "faults_of", "require_compiler"]

_COUNTED = {
    "mma": r"mma\.sync",
    "tf32 mma": r"mma\.sync\S*\.tf32\.tf32",
    "fma": r"fma\.rn\.f32",
    "128-bit load": r"ld\.(?:shared|global)\.v4",
    "ldmatrix": r"ldmatrix\.sync",
    "cp.async": r"cp\.async\.cg",
    "128-bit store": r"st\.global\.v4",
    "ex2": r"ex2\.approx",
    "float64": r"\.f64",
    "local": r"\.local",
}
_NEEDED = ("mma", "ldmatrix", "cp.async", "128-bit store", "ex2")
_NEEDED_BY = {
    "3xtf32": (*_NEEDED, "tf32 mma", "128-bit load"),
    "fma": ("fma", "128-bit load", "128-bit store", "ex2"),
}
_NEEDED_TO_MERGE = ("128-bit store", "ex2")
_FORBIDDEN = ("float64", "local")
_OF_TENSOR_CORES = ("mma", "ldmatrix")


class Report(NamedTuple):
    """What the compiler says of one variant on one architecture; nothing of it was run."""

    variant: AnyVariant
    arch: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    counts: dict[str, int]

    def row(self) -> dict[str, Any]:
        """Return the report as one flat row."""
        return {
            "variant": self.variant.name,
            "arch": self.arch,
            "registers": self.registers,
            "budget": self.variant.registers,
            "stack": self.stack,
            "spill_stores": self.spill_stores,
            "spill_loads": self.spill_loads,
            "shared_bytes": self.variant.shared_bytes,
            **self.counts,
        }


def require_compiler() -> None:
    """Raise MissingExtra unless the packages of the extra ``cuda-check`` are installed."""
    try:
        from cuda.core import Linker  # noqa: F401
        from cuda.pathfinder import load_nvidia_dynamic_lib
        from numba.cuda import compile_all  # noqa: F401

        for library in ("nvvm", "nvrtc", "nvJitLink"):
            load_nvidia_dynamic_lib(library)
    except (ImportError, RuntimeError, AttributeError) as error:
        told = " ".join(str(error).split())
        raise MissingExtra(
            "compiling CUDA kernels must find numba-cuda, NVVM, NVRTC and nvJitLink, got "
            f"{type(error).__name__}: {told}; pip install 'mhakit[cuda-check]'"
        ) from error


def capabilities_of(variant: AnyVariant) -> tuple[tuple[int, int], ...]:
    """Return the compute capabilities that a variant is checked on."""
    newer = ((8, 0), (9, 0))
    older = isinstance(variant, Variant) and variant.product == "fma" and variant.rows <= 64
    return ((7, 5), *newer) if older else newer


def compile_variant(
    variant: AnyVariant,
    capability: tuple[int, int],
    *,
    kernel: Callable[[Any, Any], None] | None = None,
) -> Report:
    """Compile one variant for a compute capability."""
    require_compiler()
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda, types

    from mhakit.backends.cuda.tiles.program import SIGNATURE, program

    arch = f"sm_{capability[0]}{capability[1]}"
    score_mod = _shifted if variant.score_mod else None
    signature = (*SIGNATURE, types.Tuple((types.float32,))) if variant.score_mod else SIGNATURE
    function = program(variant, kernel, score_mod, capability=capability)
    options: dict[str, Any] = {
        "device": False, "abi": "numba", "cc": capability,
        "launch_bounds": (variant.threads, variant.blocks),
    }  # fmt: skip
    with _device_of(capability):
        codes, _ = cuda.compile_all(function, signature, output="ltoir", **options)
        ptx, _ = cuda.compile_all(function, signature, output="ptx", **options)
    linker = Linker(
        *[ObjectCode.from_ltoir(code) for code in codes],
        options=LinkerOptions(
            arch=arch,
            link_time_optimization=True,
            ptxas_options=["-v"],
        ),
    )
    linker.link("cubin")
    log = linker.get_info_log()
    linker.close()
    text = "\n".join(code if isinstance(code, str) else code.decode() for code in ptx)
    return Report(
        variant,
        arch,
        _number(r"Used (\d+) registers", log),
        _number(r"(\d+) bytes stack frame", log),
        _number(r"(\d+) bytes spill stores", log),
        _number(r"(\d+) bytes spill loads", log),
        {name: len(re.findall(pattern, text)) for name, pattern in _COUNTED.items()},
    )


def faults_of(report: Report) -> list[str]:
    """Return what is wrong with a compiled variant, nothing where all is well."""
    faults = []
    if report.registers > report.variant.registers:
        faults.append(f"{report.registers} registers, its budget is {report.variant.registers}")
    faults += [
        f"{getattr(report, name)} bytes of {name.replace('_', ' ')}"
        for name in ("stack", "spill_stores", "spill_loads")
        if getattr(report, name)
    ]
    needed, forbidden = _rules_of(report)
    faults += [f"no {name}" for name in needed if not report.counts[name]]
    faults += [
        f"{report.counts[name]} instructions of {name}" for name in forbidden if report.counts[name]
    ]
    return faults


def _rules_of(report: Report) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the instructions that a variant must have, and those it must not."""
    variant = report.variant
    if isinstance(variant, Merging):
        return _NEEDED_TO_MERGE, _FORBIDDEN
    if variant.product != "fma":
        return _NEEDED_BY.get(variant.product, _NEEDED), _FORBIDDEN
    copies = isinstance(variant, Decoding) and report.arch != "sm_75"
    if copies:
        return (*_NEEDED_BY["fma"], "cp.async"), (*_FORBIDDEN, *_OF_TENSOR_CORES)
    return _NEEDED_BY["fma"], (*_FORBIDDEN, *_OF_TENSOR_CORES, "cp.async")


def _shifted(score, b, h, t, s, slope):
    """Be a score_mod for the variants that have one."""
    return score + slope * type(score)(t - s)


def _number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    if not found:
        raise ValueError(f"the linker's log must match {pattern!r}, got {log!r}")
    return max(int(number) for number in found)


@contextmanager
def _device_of(capability: tuple[int, int]) -> Iterator[None]:
    """Let Numba find a device of that capability where a kernel calls a device function."""
    from types import SimpleNamespace

    from numba.cuda import dispatcher

    found = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = found
