"""Whom a row is held against: plain NumPy always, torch and onnxruntime where installed.

A peer is ``make(query, key, value, keywords) -> call`` or None where it cannot do that work.
`prepare` checks, before anything is timed, that it computes the same and uses as many threads.
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from mhakit.testing import Sizes, draw

WIDEST_SCORES = 2**28  # bytes of a T * S array that a peer may make

Call = Callable[[], np.ndarray]


def installed() -> list[str]:
    """Return mhakit and the peers that are installed here, by name; none is imported."""
    others = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx")}
    return ["mhakit", "numpy"] + [
        name for name, needs in others.items() if all(map(find_spec, needs))
    ]


def threads() -> int:
    """Return how many threads mhakit uses."""
    import numba

    return int(numba.get_num_threads())


def with_mhakit(query, key, value, keywords) -> Call:
    """mhakit.attention itself."""
    import mhakit

    return lambda: mhakit.attention(query, key, value, **keywords)


def visible(query, key, keywords):
    """Return the mask that keywords say, (B or 1, 1, T, S), or None where all is seen."""
    T, S = query.shape[2], key.shape[2]
    t, s = np.arange(T)[:, None], np.arange(S)
    mask = keywords.get("mask")
    if keywords.get("causal"):
        mask = s <= t
    if keywords.get("window"):
        left, right = keywords["window"]
        mask = (t - left <= s) & (s <= t + right)
    if "key_lengths" in keywords:
        mask = (s < np.asarray(keywords["key_lengths"])[:, None, None])[:, None]
    return mask


def with_numpy(query, key, value, keywords) -> Call | None:
    """Write the formula in NumPy, whole score matrix."""
    B, H, T, D = query.shape
    G, S = key.shape[1:3]
    if 4 * B * H * T * S > WIDEST_SCORES or query.dtype.itemsize == 2:
        return None
    mask = visible(query, key, keywords)
    bias = keywords.get("bias")
    scale = query.dtype.type(1 / np.sqrt(D))

    def call():
        grouped = query.reshape(B, G, H // G * T, D)
        scores = ((grouped * scale) @ key.swapaxes(-1, -2)).reshape(B, H, T, S)
        if bias is not None:
            scores += bias
        if mask is not None:
            scores = np.where(mask, scores, scores.dtype.type(-np.inf))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return (weights.reshape(B, G, H // G * T, S) @ value).reshape(B, H, T, -1)

    return call


def with_torch(query, key, value, keywords) -> Call | None:
    """Torch's fused kernel for the CPU."""
    import torch

    B, H, T, _ = query.shape
    S = key.shape[2]
    mask, bias = visible(query, key, keywords), keywords.get("bias")
    if (mask is not None and mask.size > WIDEST_SCORES) or 4 * B * H * T * S > 2**34:
        return None
    torch.set_num_threads(threads())
    q, k, v = (_tensor(array) for array in (query, key, value))
    causal = keywords.get("causal") is True
    added = mask if bias is None else bias
    added = None if added is None or causal else torch.from_numpy(np.ascontiguousarray(added))
    attend = torch.nn.functional.scaled_dot_product_attention
    grouped = {"enable_gqa": True} if key.shape[1] != H else {}

    def call():
        with torch.inference_mode():
            return attend(q, k, v, attn_mask=added, is_causal=causal, **grouped)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        call()  # raises where torch would not take its fused kernel
    return call


def _tensor(array):
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def with_onnxruntime(query, key, value, keywords) -> Call | None:
    """Build the com.microsoft MultiHeadAttention operator, dense and float32 only."""
    B, H, T, D = query.shape
    if keywords or query.dtype != np.float32 or key.shape[1] != H:
        return None
    import onnxruntime
    from onnx import TensorProto, helper

    names = ("query", "key", "value")
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [B, None, H * D]) for n in names]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [B, T, H * D])
    node = helper.make_node(
        "MultiHeadAttention", list(names), ["output"], domain="com.microsoft", num_heads=H
    )
    graph = helper.make_graph([node], "attention", inputs, [output])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    laid = [array.swapaxes(1, 2).reshape(B, -1, H * D) for array in (query, key, value)]
    feed = dict(zip(names, laid, strict=True))
    return lambda: session.run(None, feed)[0].reshape(B, T, H, D).swapaxes(1, 2)


MAKE = {
    "mhakit": with_mhakit,
    "numpy": with_numpy,
    "torch": with_torch,
    "onnxruntime": with_onnxruntime,
}


def as_numpy(result) -> np.ndarray:
    """Return a peer's result as float32."""
    if hasattr(result, "detach"):
        return result.float().numpy()
    return np.asarray(result).astype(np.float32)


def prepare(peer: str, sizes: Sizes, dtype, keywords) -> Call:
    """Return the call to time, checked against mhakit; NotImplementedError skips the row."""
    query, key, value = draw(sizes, dtype)
    call = MAKE[peer](query, key, value, keywords)
    if call is None:
        raise NotImplementedError(f"{peer} does not do this")  # how asv skips a row
    expected = as_numpy(with_mhakit(query, key, value, keywords)())
    rounding = {2: 3e-2, 4: 1e-4, 8: 1e-6}[np.dtype(dtype).itemsize]
    np.testing.assert_allclose(as_numpy(call()), expected, atol=rounding)
    if peer == "torch":
        import torch

        if torch.get_num_threads() != threads():
            raise AssertionError("torch must use as many threads as mhakit")
    return call
