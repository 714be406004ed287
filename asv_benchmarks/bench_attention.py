"""Attention: beside its peers, what keywords cost, how exact it is, how much memory it needs."""

from dataclasses import replace

import numpy as np

from asv_benchmarks.peers import WHO, call_of
from mhakit.bench.attention import case, with_mhakit
from mhakit.bench.rows import Attention, chosen
from mhakit.testing import Sizes, budget

WORK = {
    row.name: row.work
    for row in chosen(
        [
            "dense 8,12,128,128,64",
            "causal 1,12,2048,2048,64",
            "window 256,0 causal",
            "padded",
            "grouped causal",
            "random mask",
            "additive bias",
            "score_mod ALiBi",
            "float64 causal",
            "float16 causal",
            "bfloat16 causal",
        ]
    )
}
PLAIN = replace(WORK["random mask 1,12,1024,1024,64"], changed=None)


class Attend:
    """How long does each kind of attention take, by mhakit and by each peer that can do it?"""

    params = (list(WORK), WHO)
    param_names = ("row", "who")

    def setup(self, row, who):
        self.call = call_of(WORK[row], who)

    def time_attention(self, row, who):
        self.call()


class Length:
    """How does the time of dense attention grow with T = S, by mhakit and by each peer?"""

    params = ([4, 64, 512, 2048, 16384], WHO)
    param_names = ("T", "who")

    def setup(self, T, who):
        self.call = call_of(Attention(Sizes(1, 2, 2, T, T, 64, 64)), who)

    def time_attention(self, T, who):
        self.call()


class Changed:
    """What do a random mask, an added bias, a softcap, sinks and a score_mod cost?"""

    params = (["nothing", "mask", "bias", "softcap", "sinks", "alibi"],)
    param_names = ("change",)

    def setup(self, change):
        more = {
            "softcap": {"softcap": 20.0},
            "sinks": {"sinks": np.zeros(PLAIN.sizes.H, np.float32)},
        }.get(change, {})
        changed = change if change in ("mask", "bias", "alibi") else None
        given = case(replace(PLAIN, changed=changed))
        self.call = with_mhakit(replace(given, keywords=given.keywords | more))
        self.call()

    def time_attention(self, change):
        self.call()


class Error:
    """How far from the exact result is attention, by dtype?"""

    params = (["float64", "float32", "float16", "bfloat16"], [False, True])
    param_names = ("dtype", "causal")
    unit = "largest difference"

    def track_max_error(self, dtype, causal):
        given = case(Attention(Sizes(1, 4, 4, 256, 256, 64, 64), dtype, causal=causal))
        arrays = given.query, given.key, given.value
        exact = budget("attention", *arrays, **given.keywords)[0].exact
        return float(np.abs(with_mhakit(given)().astype(exact.dtype) - exact).max())


class PeakMemory:
    """How much memory does a process need that calls attention, and one that only prepares?"""

    params = ([512, 2048],)
    param_names = ("T",)

    def setup(self, T):
        self.call = with_mhakit(case(Attention(Sizes(1, 4, 4, T, T, 64, 64))))
        self.call()

    def peakmem_attention(self, T):
        self.call()

    def peakmem_setup_only(self, T):
        pass
