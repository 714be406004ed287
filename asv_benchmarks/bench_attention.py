"""Attention by itself: what its keywords cost, how exact it is, how much memory it needs."""

from dataclasses import replace

import numpy as np

from mhakit.bench.attention import case, with_mhakit
from mhakit.bench.rows import Attention, chosen
from mhakit.testing import Sizes, budget

PLAIN = replace(chosen(["random mask"])[0].work, changed=None)


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
