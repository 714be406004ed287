"""The numbers that a launch hands to a tile kernel, by name."""

from __future__ import annotations

__all__ = ["FLOATS", "INTEGERS"]

INTEGERS = (
    # addresses; 0 where there is no such array
    "query", "key", "value", "out", "lse", "sinks", "bias", "mask", "offsets", "lengths",
    "parts",
    # bytes between neighbours along an axis
    "query_b", "query_h", "query_t", "key_b", "key_h", "key_s", "value_b", "value_h", "value_s",
    "out_b", "out_h", "out_t", "bias_b", "bias_h", "bias_t", "bias_s",
    "mask_b", "mask_h", "mask_t", "mask_s",
    # sizes; ratio is H // G, pairs is B * H, tiles the tiles of targets of one head
    "T", "S", "D", "H", "ratio", "pairs", "tiles", "section", "left", "right",
)  # fmt: skip
"""int64"""

FLOATS = ("scale", "softcap", "unit", "factor")
"""float32; what softmax works on is worth ``unit``, and ``factor`` = unit * log2(e)"""
