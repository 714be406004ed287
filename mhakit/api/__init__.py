"""The functions: check what came, choose the backend, compute, hand back."""

from mhakit.api.attending import attention
from mhakit.api.combining import combinations, combine
from mhakit.api.differentiating import CombinationGradients, combine_vjp
from mhakit.api.explaining import Explanation, explain
from mhakit.api.listing import mixings, score_mods
from mhakit.api.merging import merge_attention
from mhakit.api.mixing import mixed_attention, mixing_parameters
from mhakit.api.scoring import attention_scores, attention_weights
from mhakit.api.stepping import softmax, weighted_sum

__all__ = [
    "CombinationGradients",
    "Explanation",
    "attention",
    "attention_scores",
    "attention_weights",
    "combinations",
    "combine",
    "combine_vjp",
    "explain",
    "merge_attention",
    "mixed_attention",
    "mixing_parameters",
    "mixings",
    "score_mods",
    "softmax",
    "weighted_sum",
]
