"""Which source a variant is compiled, or run by a twin, from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mhakit.backends.cuda.tiles import attention, fma
from mhakit.backends.cuda.tiles.decoding import decode
from mhakit.backends.cuda.tiles.merging import merge
from mhakit.backends.cuda.tiles.segments import Decoding, FmaDecoding, Merging
from mhakit.backends.cuda.tiles.variant import Fma, Variant

__all__ = ["AnyVariant", "kernel_of"]

AnyVariant = Variant | Merging

_KERNELS: dict[type, Callable[[Any, Any], None]] = {
    Variant: attention.attend,
    Fma: fma.attend,
    Decoding: decode,
    FmaDecoding: decode,
    Merging: merge,
}


def kernel_of(variant: AnyVariant) -> Callable[[Any, Any], None]:
    """Return the kernel, a function of a machine and its variant."""
    return _KERNELS[type(variant)]
