"""What each head looks at: measures of attention weights, and pictures of them.

`measures` and `pictures` take weights (…, T, S) from anywhere: `mhakit.attention_weights`,
``mhakit.models``, or another library.
"""

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
