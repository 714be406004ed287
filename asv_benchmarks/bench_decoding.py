"""Decoding: one new word, and all words before it."""

from asv_benchmarks.peers import WHO, call_of
from mhakit.bench.rows import Attention
from mhakit.testing import Sizes


class Decode:
    """How long does one target take over the sources before it, all heads or groups of them?"""

    params = ([512, 8192], [8, 32], WHO)
    param_names = ("S", "G", "who")

    def setup(self, S, G, who):
        self.call = call_of(Attention(Sizes(1, 32, G, 1, S, 128, 128)), who)

    def time_decode(self, S, G, who):
        self.call()
