"""Multi-head attention on NumPy arrays, with Numba kernels, and heads combined by plugins.

Names are loaded when first used: importing this imports neither numba nor a plugin. Start with
`attention`, `MultiHeadAttention` and `combinations`; the letters of all shapes are in
`mhakit.problem`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mhakit import analysis, models, plugin_api, testing
    from mhakit.analysis import ComparedCombination, Comparison, compare_combinations
    from mhakit.api import (
        CombinationGradients,
        Explanation,
        attention,
        attention_scores,
        attention_weights,
        combinations,
        combine,
        combine_vjp,
        explain,
        merge_attention,
        mixed_attention,
        mixing_parameters,
        mixings,
        score_mods,
        softmax,
        weighted_sum,
    )
    from mhakit.errors import (
        BackendUnavailable,
        CheckpointError,
        CombinationNotFound,
        CompileError,
        DTypeError,
        KernelError,
        MhakitError,
        MhakitWarning,
        MissingExtra,
        MixingNotFound,
        OutOfMemory,
        ParameterError,
        PluginError,
        ScoreModNotFound,
        ShapeError,
    )
    from mhakit.layer import MultiHeadAttention

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "CombinationGradients",
    "CombinationNotFound",
    "ComparedCombination",
    "Comparison",
    "CompileError",
    "DTypeError",
    "Explanation",
    "KernelError",
    "MhakitError",
    "MhakitWarning",
    "MissingExtra",
    "MixingNotFound",
    "MultiHeadAttention",
    "OutOfMemory",
    "ParameterError",
    "PluginError",
    "ScoreModNotFound",
    "ShapeError",
    "__version__",
    "analysis",
    "attention",
    "attention_scores",
    "attention_weights",
    "combinations",
    "combine",
    "combine_vjp",
    "compare_combinations",
    "explain",
    "merge_attention",
    "mixed_attention",
    "mixing_parameters",
    "mixings",
    "models",
    "plugin_api",
    "score_mods",
    "softmax",
    "testing",
    "weighted_sum",
]

_RECORDS = ("CombinationGradients", "Explanation")
_COMPARISON = ("ComparedCombination", "Comparison", "compare_combinations")
_MODULES = ("analysis", "models", "plugin_api", "testing")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mhakit' has no attribute {name!r}")
    if name in _MODULES:
        return import_module(f"mhakit.{name}")
    if name == "MultiHeadAttention":
        home = "mhakit.layer"
    elif name in _COMPARISON:
        home = "mhakit.analysis"
    else:
        home = "mhakit.errors" if name[0].isupper() and name not in _RECORDS else "mhakit.api"
    globals()[name] = value = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
