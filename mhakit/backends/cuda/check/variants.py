"""The variants that the checks go through: all that a problem can be given."""

from __future__ import annotations

from itertools import product
from typing import Any

from mhakit.backends.cuda.tiles.call import tiled
from mhakit.backends.cuda.tiles.kernels import AnyVariant
from mhakit.backends.cuda.tiles.refusing import WIDTHS
from mhakit.backends.cuda.tiles.segments import ROWS, Decoding, FmaDecoding, Merging, warps_for
from mhakit.backends.cuda.tiles.variant import Fma, Variant

__all__ = ["VARIANTS"]

_FLAGS: tuple[dict[str, Any], ...] = (
    {},
    {"softcap": True},
    {"bias": True},
    {"mask": True},
    {"score_mod": True},
    {"softcap": True, "bias": True, "mask": True, "score_mod": True},
)
_PAIRS = [(width, width) for width in WIDTHS]
_PAIRS += [(64, 128), (128, 64), (256, 64), (64, 256), (256, 128)]
_KINDS = (
    (Variant, "bfloat16", "mma"), (Variant, "float16", "mma"),
    (Variant, "float32", "3xtf32"), (Fma, "float32", "fma"),
)  # fmt: skip
_DECODING_KINDS = (
    (Decoding, "bfloat16", "mma"), (Decoding, "float16", "mma"),
    (Decoding, "float32", "3xtf32"), (FmaDecoding, "float32", "fma"),
)  # fmt: skip


def _all() -> tuple[Variant, ...]:
    found = [
        tiled(kind(dtype, D, E, 64, 4, **flags, product=how), T)
        for (D, E), (kind, dtype, how), T, flags in product(_PAIRS, _KINDS, (64, 128), _FLAGS)
    ]
    # `refusal` says why
    taken = [v for v in found if not (256 in (v.D, v.E) and (v.mask or v.dtype == "float32"))]
    return tuple(dict.fromkeys(taken))


def _decoding() -> tuple[AnyVariant, ...]:
    decoding = (
        kind(dtype, D, E, ROWS, warps_for(how, E), **flags, product=how)
        for (D, E), (kind, dtype, how), flags in product(_PAIRS, _DECODING_KINDS, _FLAGS)
    )
    merging = (
        Merging(dtype, E) for E, dtype in product(WIDTHS, ("bfloat16", "float16", "float32"))
    )
    return (*decoding, *merging)


VARIANTS: tuple[AnyVariant, ...] = (*_all(), *_decoding())
