"""The single steps: scores, softmax, weights, weighted sum, merge."""

import numpy as np

from mhakit.bench.checks import as_numpy
from mhakit.bench.contest import load_peers, need, torch_alike
from mhakit.errors import MissingExtra
from mhakit.testing import Sizes, draw

SIZES = Sizes(1, 12, 12, 512, 512, 64, 64)
STEPS = ["attention_scores", "softmax", "attention_weights", "weighted_sum"]


def by_mhakit(query, key, value, scores, weights):
    """Return each step by mhakit."""
    import mhakit

    return {
        "attention_scores": lambda: mhakit.attention_scores(query, key),
        "softmax": lambda: mhakit.softmax(scores),
        "attention_weights": lambda: mhakit.attention_weights(query, key),
        "weighted_sum": lambda: mhakit.weighted_sum(weights, value),
    }


def by_numpy(query, key, value, scores, weights):
    """Return each step in NumPy."""

    def score():
        return query @ key.swapaxes(-1, -2) * np.float32(0.125)

    def softmax(scores):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    return {
        "attention_scores": score,
        "softmax": lambda: softmax(scores),
        "attention_weights": lambda: softmax(score()),
        "weighted_sum": lambda: weights @ value,
    }


def by_torch(*arrays):
    """Return each step in torch, on as many threads."""
    try:
        need("torch")
    except MissingExtra as error:
        raise NotImplementedError(str(error)) from None
    torch = torch_alike()
    query, key, value, scores, weights = map(torch.from_numpy, arrays)

    def score():
        return query @ key.swapaxes(-1, -2) * 0.125

    return {
        "attention_scores": score,
        "softmax": lambda: torch.softmax(scores, -1),
        "attention_weights": lambda: torch.softmax(score(), -1),
        "weighted_sum": lambda: weights @ value,
    }


class Step:
    """How long does each step of attention take on its own, by mhakit and by its peers?"""

    params = (STEPS, ["mhakit", "numpy", "torch"])
    param_names = ("step", "who")

    def setup(self, step, who):
        load_peers({who} - {"mhakit"})
        query, key, value = draw(SIZES, np.float32)
        steps = by_numpy(query, key, value, None, None)
        scores, weights = steps["attention_scores"](), steps["attention_weights"]()
        arrays = query, key, value, scores, weights
        make = {"mhakit": by_mhakit, "numpy": by_numpy, "torch": by_torch}
        self.call = make[who](*arrays)[step]
        expected = by_numpy(*arrays)[step]()
        np.testing.assert_allclose(as_numpy(self.call()), expected, rtol=0, atol=1e-5)

    def time_step(self, step, who):
        self.call()


class Weights:
    """What do the weights of a few rows of a long sequence cost?"""

    params = ([1, 16, 256],)
    param_names = ("queries",)

    def setup(self, queries):
        self.query, self.key, _ = draw(Sizes(1, 12, 12, 2048, 2048, 64, 64), np.float32)
        self.rows = np.arange(queries)
        self.time_weights(queries)

    def time_weights(self, queries):
        import mhakit

        mhakit.attention_weights(self.query, self.key, queries=self.rows)


class Merge:
    """What does merging attention over parts of the sources cost?"""

    params = ([2, 8],)
    param_names = ("parts",)

    def setup(self, parts):
        import mhakit

        query, key, value = draw(SIZES, np.float32)
        part = mhakit.attention(query, key, value, return_lse=True)
        self.parts = [part] * parts
        self.time_merge(parts)

    def time_merge(self, parts):
        import mhakit

        mhakit.merge_attention(*self.parts)
