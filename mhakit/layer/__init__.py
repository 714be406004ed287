"""The layer: project, attend, combine, with learned weights."""

from mhakit.layer.multi_head import MultiHeadAttention

__all__ = ["MultiHeadAttention"]
