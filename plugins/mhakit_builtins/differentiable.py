"""Functions that several strategies weigh heads by, each beside its gradient."""

from __future__ import annotations

import numpy as np

from mhakit.plugin_api import Array

__all__ = ["linear_vjp", "sigmoid", "sigmoid_vjp", "softmax", "softmax_vjp"]


def sigmoid(logits: Array) -> Array:
    """Return ``1 / (1 + exp(-logits))`` in the dtype of ``logits``; far below 0 it is exactly 0.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    result = np.negative(logits)
    with np.errstate(over="ignore", under="ignore"):
        np.exp(result, out=result)
    result += 1
    return np.reciprocal(result, out=result)


def sigmoid_vjp(d_result: Array, result: Array) -> Array:
    """Return the gradient of the logits that gave ``result``."""
    return np.asarray(d_result * result * (1 - result))


def softmax(logits: Array, axis: int) -> Array:
    """Return softmax along ``axis``; a logit of -inf gets exactly 0.

    Examples
    --------
    >>> softmax(np.array([2.0, -np.inf, 2.0]), axis=0)
    array([0.5, 0. , 0.5])
    """
    result = logits - logits.max(axis=axis, keepdims=True)
    with np.errstate(under="ignore"):
        np.exp(result, out=result)
    result /= result.sum(axis=axis, keepdims=True)
    return np.asarray(result)


def softmax_vjp(d_result: Array, result: Array, axis: int) -> Array:
    """Return the gradient of the logits that gave ``result``."""
    inner = (d_result * result).sum(axis=axis, keepdims=True)
    return np.asarray(result * (d_result - inner))


def linear_vjp(d_result: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """Return the gradients of x (B, T, M) and weight (M, N) in ``x @ weight``, (B, T, N).

    Examples
    --------
    >>> d_x, d_weight = linear_vjp(np.ones((2, 5, 3)), np.ones((2, 5, 4)), np.ones((4, 3)))
    >>> d_x.shape, d_weight.shape, float(d_weight[0, 0])
    ((2, 5, 4), (4, 3), 10.0)
    """
    M, N = weight.shape
    return d_result @ weight.T, x.reshape(-1, M).T @ d_result.reshape(-1, N)
