"""How every function of this backend is compiled."""

from __future__ import annotations

from typing import Any

from numba import njit

from mhakit.backends.cpu.linking import LinkedOnly

__all__ = ["FLAGS", "FLAGS_ALONE", "inlined", "optimized"]

FLAGS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
"""No ``nnan`` and no ``ninf``, -inf and NaN are data; no ``reassoc``, a row's bits are its own."""

FLAGS_ALONE = {name: flag for name, flag in FLAGS.items() if name != "nogil"}
"""For what is called with the GIL released already."""

optimized = njit(**FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Marks a function that is optimised before it is compiled into kernels: what a user wrote takes
arrays, whose counting of references would keep the loop around it from being vectorised."""

inlined = njit(**FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=LinkedOnly)
"""Marks a function that kernels call; it is compiled into them and cached with them."""
