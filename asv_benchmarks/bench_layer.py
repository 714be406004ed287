"""The layer: project, attend, combine."""

from asv_benchmarks.peers import peer_of
from mhakit.bench.contest import load_peers
from mhakit.bench.layers import contest
from mhakit.bench.rows import Layer as Work


class Layer:
    """How long does a layer of M = 768 and H = 12 take, and with the weights of every head?"""

    params = (["1,512", "8,128"], ["output", "output and weights"], ["mhakit", "torch"])
    param_names = ("words", "returned", "who")

    def setup(self, words, returned, who):
        load_peers({who} - {"mhakit"})
        B, T = map(int, words.split(","))
        made = contest(Work(B, T, returned == "output and weights"))
        self.call = made.mine if who == "mhakit" else peer_of(made.peers[who]).call
        self.call()

    def time_layer(self, words, returned, who):
        self.call()
