"""Combining heads beside NumPy's best form of the same arithmetic."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.bench.checks import hold
from mhakit.bench.contest import Call, Contest, Peer
from mhakit.bench.rows import Combination
from mhakit.bench.timing import fastest
from mhakit.testing import Budget, allowance

__all__ = ["contest", "formula", "numpy_forms"]

Array = NDArray[Any]
Parameters = dict[str, Array]


def contest(work: Combination) -> Contest:
    """Return mhakit's call and NumPy's, on heads that lie as attention writes them."""
    import mhakit

    rng, M = np.random.default_rng(0), work.H * work.E
    layer = mhakit.MultiHeadAttention(M, work.H, combine=work.name, rng=0)
    heads = rng.standard_normal((1, work.T, work.H, work.E)).astype(np.float32).swapaxes(1, 2)
    hidden = rng.standard_normal((1, work.T, M)).astype(np.float32)
    learned = {
        name.removeprefix("combine."): value
        for name, value in layer.parameters().items()
        if name.startswith("combine.")
    }

    def mine() -> Array:
        return mhakit.combine(heads, work.name, learned, hidden_states=hidden)

    return Contest(mine, {"numpy": partial(_numpy, work.name, heads, learned, mine)})


def numpy_forms(name: str, heads: Array, parameters: Parameters) -> dict[str, Call]:
    """Return the ways to write a combination in NumPy, none where none is written down."""
    B, H, T, E = heads.shape
    real = heads.dtype.type
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if weight is None or bias is None:
        return {}

    def project(z: Array) -> Array:
        out = z @ weight
        out += bias
        return np.asarray(out)

    def added() -> Array:
        total = heads[:, 0].copy()
        for h in range(1, H):
            total += heads[:, h]
        total *= real(1 / H)
        return project(total)

    if name == "concat_project":
        return {"matmul": lambda: project(heads.swapaxes(1, 2).reshape(B, T, H * E))}
    if name == "average":
        return {
            "mean": lambda: project(heads.mean(axis=1)),
            "sum": lambda: project(heads.sum(axis=1) * real(1 / H)),
            "head by head": added,
            "einsum": lambda: project(np.einsum("bhte->bte", heads) * real(1 / H)),
        }
    return {}


def formula(name: str, heads: Array, parameters: Parameters, real: Any) -> Array:
    """Return what a combination is, one term added after the other in ``real``."""
    H, E = heads.shape[1], heads.shape[3]
    z, weight = heads.astype(real), parameters["weight"].astype(real)
    if name == "average":
        z, H = z.sum(axis=1, keepdims=True) / real(H), 1
    product = np.einsum("bhte,hem->btm", z, weight.reshape(H, E, -1))
    return np.asarray(product + parameters["bias"].astype(real))


def _numpy(name: str, heads: Array, parameters: Parameters, mine: Call) -> Peer:
    forms = numpy_forms(name, heads, parameters)
    if not forms:
        raise NotImplementedError(f"no form of {name} in NumPy is written down")
    truth, plain = (formula(name, heads, parameters, real) for real in (np.float64, np.float32))
    expected = Budget(truth, allowance(truth, plain, plain.dtype))
    results = {f"NumPy, {form}": np.asarray(call()) for form, call in forms.items()}
    hold({"mhakit": np.asarray(mine()), **results}, expected)
    best = fastest(forms)
    return Peer(forms[best], best)
