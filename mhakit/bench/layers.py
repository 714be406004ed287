"""The layer beside torch.nn.MultiheadAttention in eval, on torch's fast path or off it."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from mhakit.bench.checks import as_numpy, hold, sample
from mhakit.bench.contest import Call, Contest, Peer, need, torch_alike
from mhakit.bench.rows import Layer
from mhakit.bench.timing import fastest
from mhakit.testing import Budget, allowance

__all__ = ["check", "contest"]

Array = NDArray[Any]
State = dict[str, Array]


def contest(work: Layer) -> Contest:
    """Return the layer's call and torch's, on the same parameters and input."""
    import mhakit

    state = draw_state(work)
    x = np.random.default_rng(1).standard_normal((work.B, work.T, work.M)).astype(np.float32)
    layer = mhakit.MultiHeadAttention.from_torch_state_dict(state, work.H)

    def mine() -> Any:
        return layer(x, return_weights=True) if work.weights else layer(x)

    return Contest(mine, {"torch": partial(_torch, work, state, x, mine)})


def draw_state(work: Layer) -> State:
    """Return random parameters by torch's names, as large as trained ones are."""
    rng, M = np.random.default_rng(0), work.M
    shapes = {
        "in_proj_weight": (3 * M, M),
        "in_proj_bias": (3 * M,),
        "out_proj.weight": (M, M),
        "out_proj.bias": (M,),
    }
    return {
        name: (rng.standard_normal(shape) / np.sqrt(M)).astype(np.float32)
        for name, shape in shapes.items()
    }


def formula(work: Layer, state: State, x: Array, rows: Array, real: Any) -> tuple[Array, Array]:
    """Return output and weights of the targets ``rows``, computed in ``real``."""
    B, _, M = x.shape
    H, D = work.H, work.M // work.H
    wide = {name: array.astype(real) for name, array in state.items()}
    weights, biases = np.split(wide["in_proj_weight"], 3), np.split(wide["in_proj_bias"], 3)
    words = x.astype(real)
    query, key, value = (
        (part @ weight.T + bias).reshape(B, -1, H, D).swapaxes(1, 2)
        for part, weight, bias in zip((words[:, rows], words, words), weights, biases, strict=True)
    )
    scores = query @ key.swapaxes(-1, -2) / real(np.sqrt(D))
    looks = np.exp(scores - scores.max(axis=-1, keepdims=True))
    looks /= looks.sum(axis=-1, keepdims=True)
    heads = (looks @ value).swapaxes(1, 2).reshape(B, -1, M)
    return heads @ wide["out_proj.weight"].T + wide["out_proj.bias"], looks


def check(work: Layer, state: State, x: Array, mine: Any, other: Any, name: str) -> None:
    """Raise AssertionError unless both results are the layer's; with weights, a pair each."""
    for i, what in enumerate(("output", "weights")[: 1 + work.weights]):
        ours, theirs = (as_numpy(side[i] if work.weights else side) for side in (mine, other))
        rows = sample(ours, theirs, work.B * work.T * work.M)
        exact = formula(work, state, x, rows, np.float64)[i]
        plain = formula(work, state, x, rows, np.float32)[i]
        expected = Budget(exact, allowance(exact, plain, np.dtype(np.float32)))
        sides = {"mhakit": ours[..., rows, :], name: theirs[..., rows, :]}
        hold({f"{who}, {what}": side for who, side in sides.items()}, expected)


def _torch(work: Layer, state: State, x: Array, mine: Call) -> Peer:
    need("torch")
    torch = torch_alike()
    layer = torch.nn.MultiheadAttention(work.M, work.H, batch_first=True).eval()
    layer.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    words = torch.from_numpy(x)

    def call(fast: bool) -> Any:
        torch.backends.mha.set_fastpath_enabled(fast)
        with torch.inference_mode():
            output, weights = layer(
                words, words, words, need_weights=work.weights, average_attn_weights=False
            )
        return (output, weights) if work.weights else output

    fused = partial(call, True)
    native = torch._native_multi_head_attention
    with patch.object(torch, "_native_multi_head_attention", wraps=native) as seen:
        fused()
    if not seen.called:
        raise AssertionError("torch must take the fast path of its MultiheadAttention")
    forms: dict[str, Call] = {"its fast path": fused, "without its fast path": partial(call, False)}
    for form in forms.values():
        check(work, state, x, mine(), form(), "torch")
    best = fastest(forms)
    return Peer(forms[best], best)
