"""What each head looks at, and what becomes of the heads: measures, pictures, a comparison.

`measures` and `pictures` take weights (…, T, S) from anywhere: `mhakit.attention_weights`,
``mhakit.models``, or another library. `comparing` refits combinations on the heads of a layer.
"""

from mhakit.analysis.comparing import compare_combinations
from mhakit.analysis.comparison import ComparedCombination, Comparison
from mhakit.analysis.measures import (
    confidence,
    entropy,
    mean_distance,
    offset_score,
    relative_entropy,
    share_on,
    strongest_source,
)
from mhakit.analysis.pictures import draw_heads, picture_path

__all__ = [
    "ComparedCombination",
    "Comparison",
    "compare_combinations",
    "confidence",
    "draw_heads",
    "entropy",
    "mean_distance",
    "offset_score",
    "picture_path",
    "relative_entropy",
    "share_on",
    "strongest_source",
]
