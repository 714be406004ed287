"""Rows of `mhakit bench` that are small enough to be checked."""

from mhakit.bench.rows import Attention
from mhakit.testing import Sizes

SMALL = Attention(Sizes(1, 4, 4, 20, 30, 16, 16))
SMALL_CAUSAL = Attention(Sizes(1, 4, 4, 20, 20, 16, 16), causal=True)
