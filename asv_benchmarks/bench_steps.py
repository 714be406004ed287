"""The single steps: scores, softmax, weights, weighted sum, merge."""

import numpy as np

from mhakit.testing import Sizes, draw

SIZES = Sizes(1, 12, 12, 512, 512, 64, 64)


class Step:
    """How long does each step of attention take on its own, in mhakit and in NumPy?"""

    params = (
        ["attention_scores", "softmax", "attention_weights", "weighted_sum"],
        ["mhakit", "numpy"],
    )
    param_names = ("step", "who")

    def setup(self, step, who):
        import mhakit

        query, key, value = draw(SIZES, np.float32)
        scores, weights = mhakit.attention_scores(query, key), mhakit.attention_weights(query, key)

        def numpy_scores():
            return query @ key.swapaxes(-1, -2) * np.float32(0.125)

        def numpy_softmax(scores):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True)

        calls = {
            ("attention_scores", "mhakit"): lambda: mhakit.attention_scores(query, key),
            ("attention_scores", "numpy"): numpy_scores,
            ("softmax", "mhakit"): lambda: mhakit.softmax(scores),
            ("softmax", "numpy"): lambda: numpy_softmax(scores),
            ("attention_weights", "mhakit"): lambda: mhakit.attention_weights(query, key),
            ("attention_weights", "numpy"): lambda: numpy_softmax(numpy_scores()),
            ("weighted_sum", "mhakit"): lambda: mhakit.weighted_sum(weights, value),
            ("weighted_sum", "numpy"): lambda: weights @ value,
        }
        self.call = calls[step, who]
        np.testing.assert_allclose(self.call(), calls[step, "numpy"](), atol=1e-4)

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
