"""The functions: check what came, choose the backend, compute, hand back."""

from mhakit.api.attending import (
    attention,
    attention_scores,
    attention_weights,
    merge_attention,
    softmax,
    weighted_sum,
)
from mhakit.api.combining import combinations, combine
from mhakit.api.explaining import Explanation, explain

__all__ = [
    "Explanation",
    "attention",
    "attention_scores",
    "attention_weights",
    "combinations",
    "combine",
    "explain",
    "merge_attention",
    "softmax",
    "weighted_sum",
]
