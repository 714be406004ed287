"""The sizes of the contract's tests, its functions, and keywords that hide some of the sources."""

import numpy as np

from material.simulation import SIMULATED
from mhakit.testing import Sizes

SIZES = Sizes(2, 4, 2, 4, 12, 3, 5) if SIMULATED else Sizes(2, 4, 2, 70, 150, 16, 24)


def hiding_keywords(rule, sizes=SIZES):
    """Return keywords that hide some sources by ``rule``, and what they hide, (B, H, T, S)."""
    B, H, _, T, S, *_ = sizes
    _, t, s = np.ogrid[:B, :T, :S]
    if rule == "mask":
        mask = np.random.default_rng(5).random((B, H, T, S)) < 0.5
        mask[:, :, :, S // 4] = False
        return {"mask": mask}, ~mask
    if rule == "bias of -inf":
        bias = np.where(s % 3 == t % 3, -np.inf, 0.5 * np.sin(s)).astype(np.float32)
        return {"bias": bias[:, None]}, np.broadcast_to(np.isinf(bias)[:, None], (B, H, T, S))
    if rule == "causal":
        hidden = s > t
        return {"causal": "top_left"}, np.broadcast_to(hidden[:, None], (B, H, T, S))
    if rule == "window":
        offset, left, right = S // 7, T // 10, T // 7
        distance = s - t - offset
        hidden = (distance < -left) | (distance > right)
        keywords = {"window": (left, right), "query_offset": offset}
        return keywords, np.broadcast_to(hidden[:, None], (B, H, T, S))
    if rule == "lengths":
        lengths = [S // 4, S - 2]
        hidden = s >= np.array(lengths)[:, None, None]
        return {"key_lengths": lengths}, np.broadcast_to(hidden[:, None], (B, H, T, S))
    if rule == "score_mod":
        hidden = (s + t) % 2 == 1

        def every_other(score, b, h, t, s):
            return score if (s + t) % 2 == 0 else type(score)(-np.inf)

        return {"score_mod": every_other}, np.broadcast_to(hidden[:, None], (B, H, T, S))
    raise AssertionError(rule)


FUNCTIONS = ["attention", "attention_weights", "attention_scores"]
