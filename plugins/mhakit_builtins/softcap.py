"""Softcap: scores squeezed smoothly into +-cap.

``cap tanh(score / cap)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import RegisterScoreMod, hookimpl

__all__ = ["softcap"]


def squeeze(score: Any, b: int, h: int, t: int, s: int, cap: Any) -> Any:
    """Return ``cap * tanh(score / cap)``."""
    return cap * np.tanh(score / cap)


def softcap(num_heads: int, dtype: np.dtype[Any], cap: float = 50.0) -> tuple[Any, tuple[Any, ...]]:
    """Make a softcap: ``cap * tanh(score / cap)``, close to score where it is small.

    Parameters
    ----------
    num_heads : int
        H.
    dtype : numpy.dtype
        The computation dtype.
    cap : float
        Greater than 0; 50 is what Gemma 2 caps attention at.

    Notes
    -----
    The keyword ``softcap`` does the same before the bias; this one, as every score mod, comes
    after it.

    References
    ----------
    Gemma Team, Gemma 2, arXiv:2408.00118, section 2 (logit soft-capping).

    Examples
    --------
    >>> function, score_args = softcap(2, np.dtype(np.float64), 2.0)
    >>> float(function(100.0, 0, 0, 5, 3, *score_args))
    2.0
    """
    if not (isinstance(cap, int | float | np.number) and math.isfinite(cap) and cap > 0):
        raise ParameterError(f"cap must be a finite number greater than 0, got {cap!r}")
    return squeeze, (dtype.type(cap),)


@hookimpl
def mhakit_register_score_mods(register: RegisterScoreMod) -> None:
    """Register ``softcap``."""
    register("softcap", softcap, reference="arXiv:2408.00118")
