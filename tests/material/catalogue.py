"""The catalogue of combinations, each with its formula written plainly, and what fits it drawn."""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag
from scipy.linalg import hadamard as hadamard_matrix

import mhakit
from mhakit.plugin_api import HeadShape
from mhakit_builtins.attention_over_heads import AttentionOverHeads
from mhakit_builtins.average import Average
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.concat_project import ConcatProject
from mhakit_builtins.differential import Differential
from mhakit_builtins.drop_head import DropHead
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.hadamard import Hadamard
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.head_norm import HeadNorm
from mhakit_builtins.head_scale import HeadScale
from mhakit_builtins.max import Max
from mhakit_builtins.mixture_of_heads import MixtureOfHeads
from mhakit_builtins.sum import Sum
from mhakit_builtins.weighted_sum import WeightedSum

B, H, T, E = 2, 6, 5, 4
MASK = (1, 0, 0.5, 1, 0, 1)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def side_by_side(z, p, factors):
    """Sum over h of (factors_h * Z_h) W_h: factors (…, H, T, E) or less, W_h the rows of head h."""
    rows = p["weight"].reshape(z.shape[1], z.shape[3], -1)
    weighted = z * factors
    return sum(weighted[:, h] @ rows[h] for h in range(z.shape[1])) + p.get("bias", 0)


def mixed(z, p, x, shared, chosen):
    share = shared * softmax(x @ p["shared_router"])
    kinds = 2 * softmax(x @ p["balance"])
    factors = np.zeros((z.shape[0], z.shape[1], z.shape[2], 1), z.dtype)
    for b, t in np.ndindex(x.shape[:2]):
        logits = x[b, t] @ p["router"]
        best = sorted(range(logits.size), key=lambda r: (-logits[r], r))[:chosen]
        factors[b, :shared, t, 0] = kinds[b, t, 0] * share[b, t]
        for r, weight in zip(best, softmax(logits[best]), strict=True):
            factors[b, shared + r, t, 0] = kinds[b, t, 1] * chosen * weight
    return side_by_side(z, p, factors)


def attended(z, p, x):
    query = x @ p["query"]
    scores = np.stack([(query * z[:, h]).sum(axis=-1) for h in range(z.shape[1])], axis=-1)
    weights = softmax(scores / np.sqrt(z.dtype.type(z.shape[3])))
    found = sum(weights[..., h, None] * z[:, h] for h in range(z.shape[1]))
    return found @ p["weight"] + p["bias"]


def per_head(gates):
    return gates.swapaxes(1, 2)[..., None]


def per_element(gates, z):
    return np.stack([gates[..., h * E : (h + 1) * E] for h in range(z.shape[1])], axis=1)


def concat(z):
    return np.concatenate([z[:, h] for h in range(z.shape[1])], axis=-1)


def walsh(width, block, dtype):
    blocks = [hadamard_matrix(block)] * (width // block)
    return block_diag(*blocks).astype(dtype) / np.sqrt(dtype.type(block))


def pairs(z, p, x):
    share = sigmoid(x @ p["lambda"])
    rows = p["weight"].reshape(z.shape[1] // 2, E, -1)
    parts = [z[:, 2 * i] - share[..., i, None] * z[:, 2 * i + 1] for i in range(z.shape[1] // 2)]
    return sum(part @ row for part, row in zip(parts, rows, strict=True)) + p["bias"]


def by_rms(z, eps):
    return z / np.sqrt((z**2).mean(axis=-1, keepdims=True) + z.dtype.type(eps))


CASES = {
    "concat_project": (ConcatProject(), lambda z, p, x: concat(z) @ p["weight"] + p["bias"]),
    "without bias": (ConcatProject(bias=False), lambda z, p, x: concat(z) @ p["weight"]),
    "average": (Average(), lambda z, p, x: z.mean(axis=1) @ p["weight"] + p["bias"]),
    "sum": (Sum(), lambda z, p, x: z.sum(axis=1) @ p["weight"] + p["bias"]),
    "weighted_sum": (
        WeightedSum(),
        lambda z, p, x: (
            sum(k * z[:, h] for h, k in enumerate(softmax(p["logits"]))) @ p["weight"] + p["bias"]
        ),
    ),
    "head_scale": (HeadScale(), lambda z, p, x: side_by_side(z, p, p["gain"][:, None, None])),
    "gated_heads": (
        GatedHeads(),
        lambda z, p, x: side_by_side(z, p, per_head(sigmoid(x @ p["gate"]))),
    ),
    "gated_heads with bias": (
        GatedHeads(gate_bias=2),
        lambda z, p, x: side_by_side(z, p, per_head(sigmoid(x @ p["gate"] + p["gate_bias"]))),
    ),
    "gated_elements": (
        GatedElements(),
        lambda z, p, x: side_by_side(z, p, per_element(sigmoid(x @ p["gate"]), z)),
    ),
    "gated_elements with bias": (
        GatedElements(gate_bias=2),
        lambda z, p, x: side_by_side(z, p, per_element(sigmoid(x @ p["gate"] + p["gate_bias"]), z)),
    ),
    "head_mask": (
        HeadMask(MASK),
        lambda z, p, x: side_by_side(z, p, np.array(MASK, z.dtype)[:, None, None]),
    ),
    "drop_head": (DropHead(0.5), lambda z, p, x: concat(z) @ p["weight"] + p["bias"]),
    "max": (Max(), lambda z, p, x: z.max(axis=1) @ p["weight"] + p["bias"]),
    "differential": (Differential(), pairs),
    "mixture_of_heads": (
        MixtureOfHeads(shared_heads=2, top_k=3),
        lambda z, p, x: mixed(z, p, x, 2, 3),
    ),
    "attention_over_heads": (AttentionOverHeads(), attended),
    "hadamard": (
        Hadamard(),
        lambda z, p, x: p["gain"] * (concat(z) @ walsh(H * E, 8, z.dtype)) + p["bias"],
    ),
    "head_norm": (
        HeadNorm(eps=1e-3),
        lambda z, p, x: side_by_side(by_rms(z, 1e-3), p, p["gain"][:, None]),
    ),
    "bilinear": (
        Bilinear(rank=3),
        lambda z, p, x: (
            ((concat(z) @ p["left"]) * (concat(z) @ p["right"])) @ p["weight"] + p["bias"]
        ),
    ),
}


def shape_of(strategy):
    return HeadShape(H, E, H * E if isinstance(strategy, Hadamard) else 9)


def drawn(strategy, dtype=np.float64, seed=0, words=T):
    """Return random heads, parameters and hidden states that fit the strategy."""
    rng = np.random.default_rng(seed)
    shape = shape_of(strategy)
    strategy.validate(shape)
    heads = rng.standard_normal((B, H, words, E)).astype(dtype)
    hidden = rng.standard_normal((B, words, shape.model_width)).astype(dtype)
    specs = strategy.parameters(shape).items()
    return heads, {n: rng.standard_normal(s.shape).astype(dtype) for n, s in specs}, hidden


def combined(strategy, heads, parameters, hidden=None, **keywords):
    return mhakit.combine(heads, strategy, parameters, hidden_states=hidden, **keywords)
