"""Multi-head attention on NumPy arrays, with Numba kernels, and heads combined by plugins.

Importing this imports no numba; the first call of a kernel does. Start with `attention`,
`MultiHeadAttention` and `combinations`; the letters of all shapes are in `mhakit.problem`.
"""

from mhakit.api import (
    Explanation,
    attention,
    attention_scores,
    attention_weights,
    combinations,
    combine,
    explain,
    merge_attention,
    softmax,
    weighted_sum,
)
from mhakit.errors import (
    BackendUnavailable,
    CheckpointError,
    CombinationNotFound,
    CompileError,
    DTypeError,
    MhakitError,
    MhakitWarning,
    OutOfMemory,
    ParameterError,
    PluginError,
    ShapeError,
)
from mhakit.layer import MultiHeadAttention

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "CombinationNotFound",
    "CompileError",
    "DTypeError",
    "Explanation",
    "MhakitError",
    "MhakitWarning",
    "MultiHeadAttention",
    "OutOfMemory",
    "ParameterError",
    "PluginError",
    "ShapeError",
    "__version__",
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
