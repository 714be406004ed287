"""Attention and its peers: NumPy's formula, torch's fused kernel, onnxruntime's operator.

Before a peer is timed it is checked: equal results, its fast path, as many threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.bench.checks import as_numpy, hold, sample
from mhakit.bench.contest import Call, Contest, Peer, need, threads, torch_alike
from mhakit.bench.rows import Attention
from mhakit.testing import budget, draw

__all__ = ["MAKE", "Case", "case", "check", "contest", "dtype_of"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A row's arrays, what mhakit is asked, and the same as the mask or bias a peer takes."""

    query: Array
    key: Array
    value: Array
    keywords: dict[str, Any]
    mask: Array | None
    """(B or 1, H or 1, T or 1, S)"""
    bias: Array | None
    """(1, H, T, S)"""

    @property
    def plainly_causal(self) -> bool:
        """Whether being causal is all that is asked."""
        return self.keywords == {"causal": True}


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the dtype of a name; bfloat16 comes from ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    result: np.dtype[Any] = np.dtype(name)
    return result


def alibi(score: Any, b: int, h: int, t: int, s: int, slopes: Any) -> Any:
    """Take a head's slope times the distance off a score: ALiBi, arXiv:2108.12409."""
    return score - slopes[h] * type(score)(abs(t - s))


def case(work: Attention) -> Case:
    """Return the arrays of a row, random but the same in every run."""
    B, H, _, T, S, _, _ = work.sizes
    query, key, value = draw(work.sizes, dtype_of(work.dtype))
    rng = np.random.default_rng(1)
    t, s = np.arange(T)[:, None], np.arange(S)
    keywords: dict[str, Any] = {}
    mask = bias = None
    if work.causal:
        keywords["causal"] = True
        mask = (s <= t)[None, None]
    if work.window is not None:
        keywords["window"] = work.window
        left, right = (S if side is None else side for side in work.window)
        seen = ((t - left <= s) & (s <= t + right))[None, None]
        mask = seen if mask is None else mask & seen
    if work.padded:
        lengths = np.linspace(S // 8, S, B).astype(np.int64)
        keywords["key_lengths"] = lengths
        mask = (s < lengths[:, None])[:, None, None]
    if work.changed == "mask":
        keywords["mask"] = mask = rng.random((1, 1, T, S)) < 0.5
    elif work.changed == "bias":
        keywords["bias"] = bias = rng.standard_normal((1, H, T, S)).astype(query.dtype)
    elif work.changed == "alibi":
        slopes = (2.0 ** (-8 * np.arange(1, H + 1) / H)).astype(query.dtype)
        keywords |= {"score_mod": alibi, "score_args": (slopes,)}
        bias = (-slopes[:, None, None] * abs(t - s))[None].astype(query.dtype)
    return Case(query, key, value, keywords, mask, bias)


def contest(work: Attention) -> Contest:
    """Return mhakit's call and its peers' on the same arrays."""
    given = case(work)
    mine = with_mhakit(given)
    B, H, _, T, S, D, E = work.sizes
    work_done = {
        "matmul": 2.0 * B * H * T * S * (D + E),
        "read": float(given.key.nbytes + given.value.nbytes),
    }
    peers = {name: partial(_checked, given, mine, name) for name in MAKE}
    return Contest(mine, peers, work_done)


def _checked(given: Case, mine: Call, name: str) -> Peer:
    need(name)
    call = MAKE[name](given)
    check(given, as_numpy(mine()), LAID.get(name, as_numpy)(call()), name)
    return Peer(call)


def check(given: Case, mine: Array, other: Array, name: str) -> None:
    """Raise AssertionError unless both results are what the row asks for."""
    B, H, _, D = given.query.shape
    rows = sample(mine, other, B * H * given.key.shape[2] * D)
    changed = {
        what: array if array.shape[2] == 1 else array[:, :, rows]
        for what, array in (("mask", given.mask), ("bias", given.bias))
        if array is not None
    }
    expected = budget("attention", given.query[:, :, rows], given.key, given.value, **changed)[0]
    hold({"mhakit": mine[:, :, rows], name: other[:, :, rows]}, expected)


def with_mhakit(given: Case) -> Call:
    """mhakit.attention itself."""
    import mhakit

    query, key, value, keywords = given.query, given.key, given.value, given.keywords
    return lambda: mhakit.attention(query, key, value, **keywords)


def with_numpy(given: Case) -> Call:
    """Write the formula in NumPy, whole score matrix."""
    query, key, value = given.query, given.key, given.value
    B, H, T, D = query.shape
    G, S = key.shape[1:3]
    scale = query.dtype.type(1 / np.sqrt(D))

    def call() -> Array:
        grouped = query.reshape(B, G, H // G * T, D)
        scores = ((grouped * scale) @ key.swapaxes(-1, -2)).reshape(B, H, T, S)
        if given.bias is not None:
            scores += given.bias
        if given.mask is not None:
            scores = np.where(given.mask, scores, scores.dtype.type(-np.inf))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray((weights.reshape(B, G, H // G * T, S) @ value).reshape(B, H, T, -1))

    return call


def with_torch(given: Case) -> Call:
    """Torch's scaled_dot_product_attention on its fused kernel for the CPU."""
    torch = torch_alike()
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    query, key, value = (_tensor(array) for array in (given.query, given.key, given.value))
    keywords: dict[str, Any] = {}
    if given.plainly_causal:
        keywords["is_causal"] = True
    elif given.mask is not None or given.bias is not None:
        added = given.mask if given.bias is None else given.bias
        keywords["attn_mask"] = _tensor(np.ascontiguousarray(added))
    if given.key.shape[1] != given.query.shape[1]:
        keywords["enable_gqa"] = True

    def call() -> Any:
        with torch.inference_mode():
            return scaled_dot_product_attention(query, key, value, **keywords)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        call()  # raises where torch would not take its fused kernel
    return call


def _tensor(array: Array) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def with_onnxruntime(given: Case) -> Call:
    """Build the com.microsoft MultiHeadAttention operator, which is dense or causal."""
    import onnxruntime
    from onnx import TensorProto, helper

    B, H, T, D = given.query.shape
    names = ("query", "key", "value")
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [B, None, H * D]) for n in names]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [B, T, H * D])
    node = helper.make_node(
        "MultiHeadAttention",
        list(names),
        ["output"],
        domain="com.microsoft",
        num_heads=H,
        unidirectional=int(given.plainly_causal),
    )
    graph = helper.make_graph([node], "attention", inputs, [output])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # a thread that waits in a loop would take a core from the other side's turn
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    laid = [a.swapaxes(1, 2).reshape(B, -1, H * D) for a in (given.query, given.key, given.value)]
    feed = dict(zip(names, laid, strict=True))

    def call() -> Array:
        result = np.asarray(session.run(None, feed)[0])
        return result.reshape(B, T, H, D).swapaxes(1, 2)

    return call


def with_jax(given: Case) -> Call:
    """jax.nn.dot_product_attention compiled by XLA for the CPU, on arrays laid as it takes them."""
    import jax

    if int(os.environ.get("NPROC", "0")) != threads():
        raise AssertionError(f"jax must run {threads()} threads: NPROC must say so when it starts")
    cpu = jax.devices("cpu")[0]

    def lay(array: Array | None, turned: bool = False) -> Any:
        if array is None:
            return None
        return jax.device_put(array.swapaxes(1, 2) if turned else array, cpu)

    query, key, value = (lay(a, turned=True) for a in (given.query, given.key, given.value))
    mask = None if given.plainly_causal else lay(given.mask)
    bias = lay(given.bias)

    attention = partial(
        jax.nn.dot_product_attention, is_causal=given.plainly_causal, implementation="xla"
    )
    attend = jax.jit(attention)

    def call() -> Any:
        return attend(query, key, value, bias, mask).block_until_ready()

    if (platform := call().device.platform) != "cpu":
        raise AssertionError(f"jax must run on the CPU, it runs on {platform}")
    return call


def _bthd(result: Any) -> Array:
    return np.asarray(result).swapaxes(1, 2)


MAKE = {
    "torch": with_torch,
    "onnxruntime": with_onnxruntime,
    "numpy": with_numpy,
    "jax": with_jax,
}
LAID: dict[str, Callable[[Any], Array]] = {"jax": _bthd}
"""How a peer's result becomes (B, H, T, E), where it is not."""
