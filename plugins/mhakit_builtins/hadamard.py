"""Mix the heads by a fixed Walsh-Hadamard transform in place of a learned projection.

``Y = a * (concat_h(Z_h) Q) + b`` with a (M,), b (M,), M = H*E, and Q (M, M) made of orthogonal
Walsh-Hadamard blocks along the diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mhakit.errors import ParameterError
from mhakit.plugin_api import (
    Array,
    CombinationCost,
    HeadCombination,
    HeadShape,
    ParameterSpec,
    Register,
    hookimpl,
)

__all__ = ["Hadamard"]


class Hadamard(HeadCombination):
    """Mix the heads by a fixed orthogonal transform; learn only a scale and a shift per channel.

    ``Y = a * (concat_h(Z_h) Q) + b``. Q is the Walsh-Hadamard matrix in its natural order over
    sqrt(block), for each block of channels; it is orthogonal, symmetric and its own inverse. It
    needs M = H*E, and learns 2 M numbers in place of M^2. ``gain`` a (M,) starts at 1, ``bias``
    (M,) at 0.

    Parameters
    ----------
    block : int, optional
        Channels that are mixed with one another, a power of two that divides H*E and, with more
        than one head, is above E; None is the largest power of two that divides H*E.
    bias : bool
        Whether b is there.

    Raises
    ------
    ParameterError
        If ``block`` is no power of two; where it is used, if M is not H*E or no such block exists.

    Notes
    -----
    Where H*E is no power of two there are several blocks, and channels of different blocks never
    meet: 768 is three blocks of 256. The transform is computed as two matrix products of about
    sqrt(block) columns each, which takes more operations than butterflies and far fewer passes over
    memory. A NaN spreads over its block.

    References
    ----------
    Aggarwal and Kumar, Rethinking Attention Output Projection: Structured Hadamard Transforms for
    Efficient Transformers, arXiv:2603.08343.

    Examples
    --------
    >>> import mhakit
    >>> heads = np.array([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # two heads, one word
    >>> mhakit.combine(heads, Hadamard(bias=False), {"gain": np.ones(4)})
    array([[[ 5., -1., -2.,  0.]]])
    """

    name = "hadamard"
    reference = "arXiv:2603.08343"

    def __init__(self, block: int | None = None, bias: bool = True) -> None:
        if block is not None and not (
            isinstance(block, int) and block > 0 and block & -block == block
        ):
            raise ParameterError(
                f"block of 'hadamard' must be None or a power of two, got {block!r}"
            )
        self.block = block
        self.bias = bias

    def block_of(self, shape: HeadShape) -> int:
        """Return how many channels are mixed with one another."""
        width = shape.concat_width
        return width & -width if self.block is None else self.block

    def validate(self, shape: HeadShape) -> None:
        """Raise ParameterError unless M is H*E and its blocks mix heads."""
        H, E, width = shape.num_heads, shape.head_width, shape.concat_width
        if shape.model_width != width:
            raise ParameterError(
                f"model_width must be H*E={width} for 'hadamard', which does not project, "
                f"got M={shape.model_width}; use concat_project, or heads of other width"
            )
        block = self.block_of(shape)
        if width % block:
            raise ParameterError(
                f"block of 'hadamard' must divide H*E={width}, got {block}; "
                f"None takes {width & -width}"
            )
        if H > 1 and block <= E:
            raise ParameterError(
                f"block of 'hadamard' must be above E={E} to mix H={H} heads, got {block}; "
                f"{width & -width} is the largest power of two in H*E={width}, use sizes with more"
            )

    def parameters(self, shape: HeadShape) -> dict[str, ParameterSpec]:
        """Return ``gain`` (M,) and, where there is one, ``bias`` (M,)."""
        specs = {"gain": ParameterSpec((shape.concat_width,), "ones")}
        if self.bias:
            specs["bias"] = ParameterSpec((shape.concat_width,), "zeros")
        return specs

    def forward(
        self,
        heads: Array,
        parameters: Mapping[str, Array],
        *,
        hidden_states: Array | None,
        training: bool,
        rng: np.random.Generator | None,
    ) -> tuple[Array, object]:
        """Return the output (B, T, M) and, to go back by, what the gain was multiplied with."""
        B, H, T, E = heads.shape
        block = self.block_of(HeadShape(H, E, H * E))
        mixed = walsh_hadamard(heads.transpose(0, 2, 1, 3).reshape(B, T, H * E), block)
        output = mixed * parameters["gain"]
        if self.bias:
            output += parameters["bias"]
        return output, _Mixed(mixed, block, heads.shape)

    def backward(
        self, d_output: Array, residuals: object, parameters: Mapping[str, Array]
    ) -> tuple[Array, Array | None, dict[str, Array]]:
        """Return the gradients of Z, by the transform itself, and of ``gain`` and ``bias``."""
        assert isinstance(residuals, _Mixed)
        B, H, T, E = residuals.heads
        d_concat = walsh_hadamard(d_output * parameters["gain"], residuals.block)
        gradients = {"gain": (d_output * residuals.mixed).sum(axis=(0, 1))}
        if self.bias:
            gradients["bias"] = d_output.sum(axis=(0, 1))
        return d_concat.reshape(B, T, H, E).transpose(0, 2, 1, 3), None, gradients

    def fold(self, parameters: Mapping[str, Array], shape: HeadShape) -> tuple[Array, Array | None]:
        """Return Q with each column scaled by its gain."""
        gain = parameters["gain"]
        matrix = walsh_hadamard(np.eye(shape.concat_width, dtype=gain.dtype), self.block_of(shape))
        return matrix * gain, parameters.get("bias")

    def cost(self, shape: HeadShape, B: int, T: int) -> CombinationCost:
        """Return the cost of the two products, the scale and the shift; the rank is M."""
        width = shape.concat_width
        rows, columns = _sides(self.block_of(shape))
        flops = B * T * width * (2 * (rows + columns) + 1 + self.bias)
        return replace(super().cost(shape, B, T), flops=flops, output_rank=width)


class _Mixed(NamedTuple):
    """The transform's result (B, T, H*E), its block, and the shape of the heads."""

    mixed: Array
    block: int
    heads: tuple[int, ...]


def walsh_hadamard(rows: Array, block: int) -> Array:
    """Return the orthogonal transform of each run of ``block`` numbers along the last axis.

    It is its own transpose and inverse. A block is read as a matrix X of two sides that are powers
    of two, and H_block x as H_rows X H_columns.

    Examples
    --------
    >>> walsh_hadamard(np.array([1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0]), 4)
    array([0.5, 0.5, 0.5, 0.5, 4. , 0. , 0. , 0. ])
    """
    height, width = _sides(block)
    scaled = _signs(width, rows.dtype) / np.sqrt(block).astype(rows.dtype)
    across = (rows.reshape(-1, width) @ scaled).reshape(-1, height, width)
    return np.reshape(_signs(height, rows.dtype) @ across, rows.shape)


def _sides(block: int) -> tuple[int, int]:
    """Return two powers of two, as equal as can be, whose product is ``block``."""
    height = 1 << (block.bit_length() - 1) // 2
    return height, block // height


def _signs(size: int, dtype: np.dtype[Any]) -> Array:
    """Return the Walsh-Hadamard matrix of 1 and -1 in its natural order."""
    index = np.arange(size)
    odd = np.bitwise_count(index[:, None] & index) & 1
    return np.where(odd, -1, 1).astype(dtype)


@hookimpl
def mhakit_register_combinations(register: Register) -> None:
    """Register `Hadamard`."""
    register(Hadamard)
