"""The catalogue of combinations: each against its formula, its fold, its cost and its equals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.linalg import hadamard as hadamard_matrix

import mhakit
from mhakit.plugin_api import HeadShape
from mhakit_builtins.attention_over_heads import AttentionOverHeads
from mhakit_builtins.average import Average
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.concat_project import ConcatProject
from mhakit_builtins.differential import Differential
from mhakit_builtins.drop_head import DropHead
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.hadamard import Hadamard
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.head_norm import HeadNorm
from mhakit_builtins.head_scale import HeadScale
from mhakit_builtins.max import Max
from mhakit_builtins.mixture_of_heads import MixtureOfHeads
from mhakit_builtins.sum import Sum
from mhakit_builtins.weighted_sum import WeightedSum

B, H, T, E = 2, 6, 5, 4
MASK = (1, 0, 0.5, 1, 0, 1)


# ---- the formulas, written plainly: z (B, H, T, E), p the parameters, x (B, T, M) --------------


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def side_by_side(z, p, factors):
    """Sum over h of (factors_h * Z_h) W_h: factors (…, H, T, E) or less, W_h the rows of head h."""
    rows = p["weight"].reshape(z.shape[1], z.shape[3], -1)
    weighted = z * factors
    return sum(weighted[:, h] @ rows[h] for h in range(z.shape[1])) + p.get("bias", 0)


def mixed(z, p, x, shared, chosen):
    share = shared * softmax(x @ p["shared_router"])
    kinds = 2 * softmax(x @ p["balance"])
    factors = np.zeros((z.shape[0], z.shape[1], z.shape[2], 1), z.dtype)
    for b, t in np.ndindex(x.shape[:2]):
        logits = x[b, t] @ p["router"]
        best = sorted(range(logits.size), key=lambda r: (-logits[r], r))[:chosen]
        factors[b, :shared, t, 0] = kinds[b, t, 0] * share[b, t]
        for r, weight in zip(best, softmax(logits[best]), strict=True):
            factors[b, shared + r, t, 0] = kinds[b, t, 1] * chosen * weight
    return side_by_side(z, p, factors)


def attended(z, p, x):
    query = x @ p["query"]
    scores = np.stack([(query * z[:, h]).sum(axis=-1) for h in range(z.shape[1])], axis=-1)
    weights = softmax(scores / np.sqrt(z.dtype.type(z.shape[3])))
    found = sum(weights[..., h, None] * z[:, h] for h in range(z.shape[1]))
    return found @ p["weight"] + p["bias"]


def per_head(gates):
    return gates.swapaxes(1, 2)[..., None]


def per_element(gates, z):
    return np.stack([gates[..., h * E : (h + 1) * E] for h in range(z.shape[1])], axis=1)


def concat(z):
    return np.concatenate([z[:, h] for h in range(z.shape[1])], axis=-1)


def walsh(width, block, dtype):
    blocks = [hadamard_matrix(block)] * (width // block)
    return block_diag(*blocks).astype(dtype) / np.sqrt(dtype.type(block))


def pairs(z, p, x):
    share = sigmoid(x @ p["lambda"])
    rows = p["weight"].reshape(z.shape[1] // 2, E, -1)
    parts = [z[:, 2 * i] - share[..., i, None] * z[:, 2 * i + 1] for i in range(z.shape[1] // 2)]
    return sum(part @ row for part, row in zip(parts, rows, strict=True)) + p["bias"]


def by_rms(z, eps):
    return z / np.sqrt((z**2).mean(axis=-1, keepdims=True) + z.dtype.type(eps))


CASES = {
    "concat_project": (ConcatProject(), lambda z, p, x: concat(z) @ p["weight"] + p["bias"]),
    "without bias": (ConcatProject(bias=False), lambda z, p, x: concat(z) @ p["weight"]),
    "average": (Average(), lambda z, p, x: z.mean(axis=1) @ p["weight"] + p["bias"]),
    "sum": (Sum(), lambda z, p, x: z.sum(axis=1) @ p["weight"] + p["bias"]),
    "weighted_sum": (
        WeightedSum(),
        lambda z, p, x: (
            sum(k * z[:, h] for h, k in enumerate(softmax(p["logits"]))) @ p["weight"] + p["bias"]
        ),
    ),
    "head_scale": (HeadScale(), lambda z, p, x: side_by_side(z, p, p["gain"][:, None, None])),
    "gated_heads": (
        GatedHeads(),
        lambda z, p, x: side_by_side(z, p, per_head(sigmoid(x @ p["gate"]))),
    ),
    "gated_heads with bias": (
        GatedHeads(gate_bias=2),
        lambda z, p, x: side_by_side(z, p, per_head(sigmoid(x @ p["gate"] + p["gate_bias"]))),
    ),
    "gated_elements": (
        GatedElements(),
        lambda z, p, x: side_by_side(z, p, per_element(sigmoid(x @ p["gate"]), z)),
    ),
    "gated_elements with bias": (
        GatedElements(gate_bias=2),
        lambda z, p, x: side_by_side(z, p, per_element(sigmoid(x @ p["gate"] + p["gate_bias"]), z)),
    ),
    "head_mask": (
        HeadMask(MASK),
        lambda z, p, x: side_by_side(z, p, np.array(MASK, z.dtype)[:, None, None]),
    ),
    "drop_head": (DropHead(0.5), lambda z, p, x: concat(z) @ p["weight"] + p["bias"]),
    "max": (Max(), lambda z, p, x: z.max(axis=1) @ p["weight"] + p["bias"]),
    "differential": (Differential(), pairs),
    "mixture_of_heads": (
        MixtureOfHeads(shared_heads=2, top_k=3),
        lambda z, p, x: mixed(z, p, x, 2, 3),
    ),
    "attention_over_heads": (AttentionOverHeads(), attended),
    "hadamard": (
        Hadamard(),
        lambda z, p, x: p["gain"] * (concat(z) @ walsh(H * E, 8, z.dtype)) + p["bias"],
    ),
    "head_norm": (
        HeadNorm(eps=1e-3),
        lambda z, p, x: side_by_side(by_rms(z, 1e-3), p, p["gain"][:, None]),
    ),
    "bilinear": (
        Bilinear(rank=3),
        lambda z, p, x: (
            ((concat(z) @ p["left"]) * (concat(z) @ p["right"])) @ p["weight"] + p["bias"]
        ),
    ),
}
FOLDED = [
    "concat_project", "average", "sum", "weighted_sum", "head_scale", "head_mask", "drop_head", "hadamard",
]  # fmt: skip


def shape_of(strategy):
    return HeadShape(H, E, H * E if isinstance(strategy, Hadamard) else 9)


def drawn(strategy, dtype=np.float64, seed=0, words=T):
    """Return random heads, parameters and hidden states that fit the strategy."""
    rng = np.random.default_rng(seed)
    shape = shape_of(strategy)
    strategy.validate(shape)
    heads = rng.standard_normal((B, H, words, E)).astype(dtype)
    hidden = rng.standard_normal((B, words, shape.model_width)).astype(dtype)
    specs = strategy.parameters(shape).items()
    return heads, {n: rng.standard_normal(s.shape).astype(dtype) for n, s in specs}, hidden


def assert_within_budget(actual, formula, heads, parameters, hidden):
    """Allow twice the error of the formula in the dtype itself and of one rounding."""

    def run(dtype):
        cast = {name: array.astype(dtype) for name, array in parameters.items()}
        return formula(heads.astype(dtype), cast, hidden.astype(dtype))

    exact = run(np.longdouble)
    rounding = np.abs(exact).max() * np.finfo(heads.dtype).eps / 2
    allowed = 2 * (np.abs(run(heads.dtype) - exact).max() + rounding)
    assert (actual.shape, actual.dtype) == (exact.shape, heads.dtype)
    assert np.abs(actual - exact).max() <= allowed


COMPUTED_IN_NUMPY = ("hadamard", "bilinear")


def combined(strategy, heads, parameters, hidden=None, **keywords):
    return mhakit.combine(heads, strategy, parameters, hidden_states=hidden, **keywords)


@pytest.mark.parametrize("real", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_each_does_what_its_formula_says(case, real, backend):
    strategy, formula = CASES[case]
    given = drawn(strategy, real)
    if backend == "cuda" and strategy.name in COMPUTED_IN_NUMPY:
        with pytest.raises(
            mhakit.BackendUnavailable, match=f"{strategy.name!r} must return a plan"
        ):
            combined(strategy, *given, backend=backend)
        return
    assert_within_budget(combined(strategy, *given, backend=backend), formula, *given)


class Off(Average):
    """Wrong by a few hundred roundings."""

    def plan(self, heads, parameters, **given):
        return self.project(heads, parameters, head_weights=(1 + 1e-13) / heads.shape[1])


def test_an_error_of_a_few_hundred_roundings_is_seen():
    given = drawn(Off())
    with pytest.raises(AssertionError):
        assert_within_budget(combined(Off(), *given), CASES["average"][1], *given)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("empty", ["words", "batch"])
@pytest.mark.parametrize("case", CASES)
def test_no_words_and_no_batch_give_empty_results_and_gradients_of_zero(case, empty, backend):
    strategy, _ = CASES[case]
    heads, parameters, hidden = drawn(strategy)
    kept = np.s_[:, :, :0] if empty == "words" else np.s_[:0]
    heads, hidden = heads[kept], hidden[:, :0] if empty == "words" else hidden[:0]
    output, pullback = mhakit.combine_vjp(
        heads, strategy, parameters, hidden_states=hidden, training=True, rng=0, backend=backend
    )
    assert output.shape == hidden.shape
    gradients = pullback(output)
    assert gradients.heads.shape == heads.shape
    for name, gradient in gradients.parameters.items():
        np.testing.assert_array_equal(gradient, np.zeros_like(parameters[name]))


def test_all_of_the_catalogue_is_installed_and_tested():
    installed = {r.name: r for r in mhakit.combinations() if r.distribution == "mhakit"}
    assert set(installed) == {strategy.name for strategy, _ in CASES.values()}
    for strategy, _ in CASES.values():
        assert installed[strategy.name].cls is type(strategy)


@pytest.mark.parametrize("name", sorted({strategy.name for strategy, _ in CASES.values()}))
def test_a_layer_takes_each_by_name(name):
    layer = mhakit.MultiHeadAttention(16, 4, combine=name, rng=0)
    x = np.random.default_rng(1).standard_normal((2, 3, 16)).astype(np.float32)
    y = layer(x)
    assert y.shape == x.shape
    assert np.isfinite(y).all()
    assert y.any()


@pytest.mark.parametrize("case", CASES)
def test_the_fold_does_what_runs_where_there_is_one(case):
    strategy, _ = CASES[case]
    heads, parameters, hidden = drawn(strategy)
    folded = strategy.fold(parameters, shape_of(strategy))
    assert (folded is not None) == (strategy.name in FOLDED)
    if folded is not None:
        weight, bias = folded
        expected = concat(heads) @ weight + (0 if bias is None else bias)
        actual = combined(strategy, heads, parameters, hidden)
        np.testing.assert_allclose(
            actual, expected, rtol=0, atol=H * E * 2e-16 * np.abs(expected).max()
        )


# ---- what each costs --------------------------------------------------------------------------

RELATIVE = {  # FLOPs against concat_project, and output rank, at H=12, E=64, M=768
    Average(): (1 / 12, 64),
    Sum(): (1 / 12, 64),
    WeightedSum(): (1 / 12, 64),
    Max(): (1 / 12, 64),
    HeadScale(): (1, 768),
    GatedHeads(): (1 + 1 / 64, 768),
    GatedElements(): (2, 768),
    HeadMask([0] * 11 + [1]): (1, 64),
    DropHead(): (1, 768),
    Differential(): (1 / 2 + 6 / 768, 384),
    MixtureOfHeads(): (1 + 11 / 768, 768),
    AttentionOverHeads(): (2 / 12, 64),
    Hadamard(): (32 / 768, 768),
    HeadNorm(): (1, 768),
    Bilinear(rank=128): (3 * 128 / 768, 128),
}


@pytest.mark.parametrize("strategy", RELATIVE, ids=lambda strategy: strategy.name)
def test_the_cost_is_what_the_catalogue_says(strategy):
    shape = HeadShape(12, 64, 768)
    cost, base = strategy.cost(shape, 1, 512), ConcatProject().cost(shape, 1, 512)
    flops, rank = RELATIVE[strategy]
    # what is no matrix product is at most 8 operations for each of the 768 elements of a word
    assert 0 <= cost.flops / base.flops - flops <= 8 * 768 / (2 * 768 * 768)
    assert cost.output_rank == rank


@pytest.mark.parametrize("case", CASES)
def test_the_cost_counts_the_parameters_and_the_rank_that_come_out(case):
    strategy, _ = CASES[case]
    heads, parameters, hidden = drawn(strategy, words=30)
    cost = strategy.cost(shape_of(strategy), B, 30)
    assert cost.parameters == sum(array.size for array in parameters.values())
    unshifted = {**parameters, "bias": 0 * parameters["bias"]} if strategy.bias else parameters
    y = combined(strategy, heads, unshifted, hidden)
    assert np.linalg.matrix_rank(y.reshape(B * 30, -1)) == cost.output_rank
    moved = heads.size + y.size + sum(array.size for array in parameters.values())
    assert cost.bytes == 4 * (moved + strategy.uses_hidden_states * hidden.size)


def test_the_flops_of_a_mask_are_those_of_the_heads_that_stay():
    shape = HeadShape(6, 4, 9)
    base = HeadMask().cost(shape, 2, 5).flops
    assert base == ConcatProject().cost(shape, 2, 5).flops
    assert HeadMask(MASK).cost(shape, 2, 5).flops - base == 2 * 5 * 4 * np.count_nonzero(MASK)
