"""Attention: how long, how exact, how much memory, and beside whom."""

import numpy as np

from asv_benchmarks.peers import draw, installed, prepare
from mhakit.testing import Sizes, budget
from mhakit.testing.benchmarks import interleaved

SHAPES = {
    "dense 1x12x512x64": (Sizes(1, 12, 12, 512, 512, 64, 64), {}),
    "dense 8x12x128x64": (Sizes(8, 12, 12, 128, 128, 64, 64), {}),
    "dense 1x8x1024x128": (Sizes(1, 8, 8, 1024, 1024, 128, 128), {}),
    "causal 1x12x1024x64": (Sizes(1, 12, 12, 1024, 1024, 64, 64), {"causal": True}),
    "window 64 1x8x2048x64": (Sizes(1, 8, 8, 2048, 2048, 64, 64), {"window": (64, 64)}),
    "padded 4x12x256x64": (Sizes(4, 12, 12, 256, 256, 64, 64), {"key_lengths": [32, 96, 160, 256]}),
    "grouped causal 1x32/8x512x128": (Sizes(1, 32, 8, 512, 512, 128, 128), {"causal": True}),
    "decode 1x32/8x1x2048x128": (Sizes(1, 32, 8, 1, 2048, 128, 128), {}),
    "odd 1x8x333x1000x80": (Sizes(1, 8, 8, 333, 1000, 80, 80), {}),
    "tiny 1x8x4x16": (Sizes(1, 8, 8, 4, 4, 16, 16), {}),
}


def random_mask():
    return np.random.default_rng(0).random((1, 1, 512, 512)) < 0.5


def random_bias():
    return np.random.default_rng(0).standard_normal((1, 12, 512, 512)).astype(np.float32)


def alibi(score, b, h, t, s, slopes):
    return score - slopes[h] * type(score)(abs(t - s))


def numbers_of(name):
    """Return the dtype of a name; bfloat16 comes from ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class Attention:
    """How long does attention take, by shape, for mhakit and its peers?"""

    params = (list(SHAPES), installed())
    param_names = ("shape", "who")

    def setup(self, shape, who):
        sizes, keywords = SHAPES[shape]
        self.call = prepare(who, sizes, np.float32, keywords)

    def time_attention(self, shape, who):
        self.call()


class Changed:
    """What do a random mask, an added bias, a softcap and a score_mod cost?"""

    params = (["nothing", "mask", "bias", "softcap", "sinks", "score_mod"],)
    param_names = ("change",)

    def setup(self, change):
        slopes = (2.0 ** -np.arange(1, 13)).astype(np.float32)
        keywords = {
            "nothing": {},
            "mask": {"mask": random_mask()},
            "bias": {"bias": random_bias()},
            "softcap": {"softcap": 20.0},
            "sinks": {"sinks": np.zeros(12, np.float32)},
            "score_mod": {"score_mod": alibi, "score_args": (slopes,)},
        }[change]
        self.call = prepare("mhakit", Sizes(1, 12, 12, 512, 512, 64, 64), np.float32, keywords)

    def time_attention(self, change):
        self.call()


class DType:
    """How long does attention take, and how exact is it, by dtype?"""

    params = (["float64", "float32", "float16", "bfloat16"], [False, True])
    param_names = ("dtype", "causal")

    def setup(self, dtype, causal):
        self.sizes = Sizes(1, 4, 4, 256, 256, 64, 64)
        self.keywords = {"causal": True} if causal else {}
        self.arrays = draw(self.sizes, numbers_of(dtype))
        self.call = prepare("mhakit", self.sizes, numbers_of(dtype), self.keywords)

    def time_attention(self, dtype, causal):
        self.call()

    def track_max_error(self, dtype, causal):
        exact = budget("attention", *self.arrays, **self.keywords)[0].exact
        return float(np.abs(self.call().astype(exact.dtype) - exact).max())


class Memory:
    """How much memory does a process need that calls attention, and one that only prepares?"""

    params = ([512, 2048],)
    param_names = ("T",)

    def setup(self, T):
        self.call = prepare("mhakit", Sizes(1, 4, 4, T, T, 64, 64), np.float32, {})

    def peakmem_attention(self, T):
        self.call()

    def peakmem_setup_only(self, T):
        pass


class Ratio:
    """How many times faster than a peer, measured in turns, so that it holds across machines?"""

    params = (list(SHAPES), [name for name in installed() if name != "mhakit"])
    param_names = ("shape", "peer")
    unit = "ratio"

    def setup(self, shape, peer):
        sizes, keywords = SHAPES[shape]
        self.mine = prepare("mhakit", sizes, np.float32, keywords)
        self.peer = prepare(peer, sizes, np.float32, keywords)

    def track_speedup(self, shape, peer):
        return interleaved(self.peer, self.mine)


class FractionOfMatmul:
    """What part of the rate of NumPy's matrix product does attention reach?"""

    params = (["dense 1x12x512x64", "dense 1x8x1024x128"],)
    param_names = ("shape",)
    unit = "ratio"

    def setup(self, shape):
        sizes, keywords = SHAPES[shape]
        self.flops = 4 * sizes.B * sizes.H * sizes.T * sizes.S * sizes.D
        self.call = prepare("mhakit", sizes, np.float32, keywords)
        a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
        self.matmul = lambda: a @ a

    def track_fraction_of_matmul(self, shape):
        return self.flops / (2 * 1024**3) * interleaved(self.matmul, self.call)
