"""What each combination of the catalogue costs."""

from __future__ import annotations

import numpy as np
import pytest

from material.catalogue import CASES, MASK, B, combined, drawn, shape_of
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
