"""Each combination of the catalogue in NumPy's best form, on heads that lie as (1, T, H, E).

"Best" is fewest passes: the heads are never transposed, sums over heads are one einsum, factors are
applied in place, and every projection is one product of two matrices.
"""

import numpy as np


def project(rows, p):
    """Return rows @ weight + bias, the bias added in place."""
    result = rows @ p["weight"]
    result += p["bias"]
    return result


def sigmoid(logits):
    """Return the sigmoid, in place."""
    np.exp(np.negative(logits, out=logits), out=logits)
    logits += 1
    return np.reciprocal(logits, out=logits)


def softmax(logits):
    """Return softmax over the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def side_by_side(z):
    """View (1, T, H, E) as (1, T, H*E)."""
    return z.reshape(1, z.shape[1], -1)


def concat_project(z, x, p):
    """Project."""
    return project(side_by_side(z), p)


def average(z, x, p):
    """Average over H, project."""
    return project(np.einsum("bthe->bte", z) / z.dtype.type(z.shape[2]), p)


def total(z, x, p):
    """Sum over H, project."""
    return project(np.einsum("bthe->bte", z), p)


def weighted_sum(z, x, p):
    """Weigh and sum over H as small products, project."""
    return project(softmax(p["logits"].copy()) @ z, p)


def head_scale(z, x, p):
    """Scale, project."""
    return project(side_by_side(z * p["gain"][:, None]), p)


def gated_heads(z, x, p):
    """Make the gates, scale, project."""
    return project(side_by_side(z * sigmoid(x @ p["gate"])[..., None]), p)


def gated_elements(z, x, p):
    """Make the gates, scale them by the heads in place, project."""
    gates = sigmoid(x @ p["gate"])
    gates *= side_by_side(z)
    return project(gates, p)


def maximum(z, x, p):
    """Take the maximum over H, project."""
    return project(z.max(axis=2), p)


def differential(z, x, p):
    """Scale the odd heads, subtract, project."""
    odd = z[:, :, 1::2] * sigmoid(x @ p["lambda"])[..., None]
    return project(side_by_side(np.subtract(z[:, :, ::2], odd, out=odd)), p)


def mixture_of_heads(z, x, p):
    """Route by a partition of the logits, scale, project."""
    S, R = p["shared_router"].shape[1], p["router"].shape[1]
    k = (R + 1) // 2
    logits = x @ p["router"]
    np.put_along_axis(logits, np.argpartition(-logits, k - 1)[..., k:], -np.inf, axis=-1)
    kinds = 2 * softmax(x @ p["balance"])
    shared = S * kinds[..., :1] * softmax(x @ p["shared_router"])
    routed = k * kinds[..., 1:] * softmax(logits)
    return project(side_by_side(z * np.concatenate((shared, routed), axis=-1)[..., None]), p)


def attention_over_heads(z, x, p):
    """Score, weigh and sum as small products, project."""
    query = x @ p["query"] / np.sqrt(z.shape[3]).astype(z.dtype)
    weights = softmax((z @ query[..., None])[..., 0])
    return project((weights[..., None, :] @ z)[:, :, 0], p)


def hadamard(z, x, p):
    """Multiply by the matrix of one block, scale and shift in place."""
    block = z[0, 0].size & -z[0, 0].size
    index = np.arange(block)
    signs = 1 - 2 * (np.bitwise_count(index[:, None] & index) & 1).astype(z.dtype)
    result = z.reshape(-1, block) @ (signs / np.sqrt(block).astype(z.dtype))
    result = result.reshape(1, z.shape[1], -1)
    result *= p["gain"]
    result += p["bias"]
    return result


def head_norm(z, x, p):
    """Scale by 1 / rms, scale in place, project."""
    mean = np.einsum("bthe,bthe->bth", z, z) / z.dtype.type(z.shape[3])
    scaled = z * (1 / np.sqrt(mean + z.dtype.type(1e-5)))[..., None]
    scaled *= p["gain"]
    return project(side_by_side(scaled), p)


def bilinear(z, x, p):
    """Multiply two projections in place, project."""
    left = side_by_side(z) @ p["left"]
    left *= side_by_side(z) @ p["right"]
    return project(left, p)


FORMS = {
    "attention_over_heads": attention_over_heads,
    "average": average,
    "bilinear": bilinear,
    "concat_project": concat_project,
    "differential": differential,
    "drop_head": concat_project,  # not training
    "gated_elements": gated_elements,
    "gated_heads": gated_heads,
    "hadamard": hadamard,
    "head_mask": concat_project,  # without a mask
    "head_norm": head_norm,
    "head_scale": head_scale,
    "max": maximum,
    "mixture_of_heads": mixture_of_heads,
    "sum": total,
    "weighted_sum": weighted_sum,
}
