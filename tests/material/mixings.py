"""Arrays to mix, what each rule hides of them, the formula of talking heads, and two mixings."""

import math

import numpy as np

from material.budgets import budget_of
from mhakit.plugin_api import HeadMixing

B, K, G, H, V, T, S, D, E = 2, 6, 3, 4, 2, 9, 13, 8, 5


def inputs(dtype=np.float64, seed=0, heads=(K, H, V), values=None):
    """Return query, key, value and the parameters of talking heads, drawn afresh."""
    rng = np.random.default_rng(seed)
    scoring, softmax, valued = heads
    shapes = (B, scoring, T, D), (B, G, S, D), (B, values or valued, S, E)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    learned = {
        "score_projection": rng.standard_normal((scoring, softmax)).astype(np.float32),
        "weight_projection": rng.standard_normal((softmax, valued)).astype(np.float32),
    }
    return arrays, learned


def visibility(rule, softmax=H):
    """Return keywords that hide by ``rule``, and what each head of softmax sees, (B, H, T, S)."""
    t, s = np.ogrid[:T, :S]
    seen = np.ones((B, softmax, T, S), bool)
    if rule == "nothing":
        return {}, seen
    if rule == "causal":
        return {"causal": True, "query_offset": 2}, seen & (s <= t + 2)
    if rule == "window":
        near = (s - t >= -3) & (s - t <= 1)
        return {"window": (3, 1), "query_offset": 0}, seen & near
    if rule == "lengths":
        return {"key_lengths": [4, 11]}, seen & (s < np.array([4, 11])[:, None, None, None])
    if rule == "mask of every head":
        mask = np.random.default_rng(5).random((B, softmax, T, S)) < 0.6
        mask[:, :, 3] = False
        mask[:, 1:, :, 5] = False
        return {"mask": mask}, mask
    if rule == "mask of keys":
        mask = np.random.default_rng(5).random((B, 1, 1, S)) < 0.6
        return {"mask": mask}, seen & mask
    if rule == "bias":
        bias = np.random.default_rng(6).standard_normal((softmax, T, S))
        bias[:, (s + t) % 3 == 0] = -np.inf
        return {"bias": bias}, seen & (bias != -np.inf)
    raise AssertionError(rule)


RULES = [
    "nothing", "causal", "window", "lengths", "mask of every head", "mask of keys", "bias",
]  # fmt: skip


def formula(arrays, learned, seen, bias, real, mistake=None):
    """Scale, mix, bias and mask, softmax, mix, times value: talking heads as written, in ``real``."""
    query, key, value = (array.astype(real) for array in arrays)
    P, W = (learned[name].astype(real) for name in ("score_projection", "weight_projection"))
    key = np.repeat(key, query.shape[1] // key.shape[1], axis=1)
    value = np.repeat(value, W.shape[1] // value.shape[1], axis=1)
    scores = np.einsum("bhtd,bhsd->bhts", query, key) * real(1 / math.sqrt(D))
    if mistake == "mask before the mix":
        scores, seen = np.where(seen, scores, real(-1e4)), np.ones_like(seen)
    if mistake == "bias before the mix":
        scores, bias = scores + bias, None
    mixed = np.einsum("bits,ij->bjts", scores, P.T if mistake == "mix from the other side" else P)
    mixed = np.where(seen, mixed + (0 if bias is None else np.where(seen, bias, 0)), -np.inf)
    top = mixed.max(axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(mixed - np.where(top == -np.inf, 0, top)).astype(real)
    total = powers.sum(axis=-1, keepdims=True)
    weights = powers / np.where(total == 0, 1, total)
    if mistake != "no second mix":
        weights = np.einsum("bjts,jk->bkts", weights, W)
    return np.einsum("bkts,bkse->bkte", weights, value), weights


def budgets(arrays, learned, seen, bias=None):
    """Return what the output of talking heads and their weights may be."""

    def result(place):
        return lambda real: formula(arrays, learned, seen, bias, real)[place]

    return [budget_of(result(place), arrays[0].dtype) for place in (0, 1)]


class Idle(HeadMixing):
    """No mix at all, by the methods' defaults."""

    name = "idle"
    reference = "a test"

    def mix_scores(self, scores, parameters, **states):
        return super().mix_scores(scores, parameters, **states)


class ByWord(HeadMixing):
    """Scores and weights times a number that both words say."""

    name = "by_word"
    reference = "a test"
    uses_hidden_states = True

    def mix_scores(self, scores, parameters, *, hidden_states, source_states):
        return scores[:, ::-1] * self.factor(hidden_states, source_states)

    def mix_weights(self, weights, parameters, *, hidden_states, source_states):
        return weights[:, ::-1] * self.factor(hidden_states, source_states) + 1

    def factor(self, hidden_states, source_states):
        return (hidden_states[:, :, :1] + source_states[:, None, :, 0])[:, None]
