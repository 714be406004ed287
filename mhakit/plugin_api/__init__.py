"""All that a plugin imports: the marker of hooks, and the interface of what it may register.

Letters as everywhere in mhakit: B batch, H heads, T targets, E head width (of the values),
M model width. See ``plugins/README.md``.
"""

from mhakit.plugin_api.combination import HeadCombination
from mhakit.plugin_api.hooks import (
    ENTRY_POINT_GROUP,
    Hooks,
    Register,
    RegisterMixing,
    RegisterScoreMod,
    hookimpl,
    hookspec,
)
from mhakit.plugin_api.mixing import HeadMixing, MixingShape
from mhakit.plugin_api.plan import (
    Array,
    CombinationCost,
    CombinationPlan,
    HeadShape,
    Initializer,
    ParameterSpec,
)
from mhakit.plugin_api.score_mod import ScoreModFactory

__all__ = [
    "ENTRY_POINT_GROUP",
    "Array",
    "CombinationCost",
    "CombinationPlan",
    "HeadCombination",
    "HeadMixing",
    "HeadShape",
    "Hooks",
    "Initializer",
    "MixingShape",
    "ParameterSpec",
    "Register",
    "RegisterMixing",
    "RegisterScoreMod",
    "ScoreModFactory",
    "hookimpl",
    "hookspec",
]
