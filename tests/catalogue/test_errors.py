"""What the catalogue's combinations refuse: options, sizes, parameters and hidden states."""

from __future__ import annotations

import re

import numpy as np
import pytest

import mhakit
from mhakit.errors import ParameterError, ShapeError
from mhakit.plugin_api import HeadShape
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.differential import Differential
from mhakit_builtins.drop_head import DropHead
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.hadamard import Hadamard
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.head_norm import HeadNorm
from mhakit_builtins.mixture_of_heads import MixtureOfHeads

B, H, T, E, M = 3, 6, 5, 4, 9
HEADS, HIDDEN = np.ones((B, H, T, E)), np.ones((B, T, M))
CONCAT = {"weight": np.ones((H * E, M)), "bias": np.ones(M)}
SHARED = {"weight": np.ones((E, M)), "bias": np.ones(M)}
GATES = {"gate": np.zeros((M, H)), **CONCAT}
REFUSED = {
    "odd H": (
        "differential", {"lambda": np.zeros((M, 2)), **SHARED}, {"heads": HEADS[:, :5]}, ParameterError,
        "num_heads must be even for 'differential', which subtracts heads in pairs, got H=5; use 6 heads",
    ),
    "a projection by hadamard": (
        "hadamard", {"gain": np.ones(24), "bias": np.zeros(M)}, {}, ParameterError,
        "model_width must be H*E=24 for 'hadamard', which does not project, got M=9; use concat_project",
    ),
    "no power of two": (
        Hadamard(bias=False), {"gain": np.ones(24)}, {"heads": HEADS[:, :3], "hidden_states": None},
        ParameterError, "block of 'hadamard' must be above E=4 to mix H=3 heads, got 4; 4 is the largest "
        "power of two in H*E=12, use sizes with more",
    ),
    "a block that does not divide": (
        Hadamard(block=16, bias=False), {"gain": np.ones(24)}, {"hidden_states": None}, ParameterError,
        "block of 'hadamard' must divide H*E=24, got 16; None takes 8",
    ),
    "more shared heads than heads": (
        MixtureOfHeads(shared_heads=7), CONCAT, {}, ParameterError,
        "shared_heads of 'mixture_of_heads' must be at most H=6, got 7; None shares a quarter",
    ),
    "top-k above H": (
        MixtureOfHeads(shared_heads=0, top_k=7), CONCAT, {}, ParameterError,
        "top_k of 'mixture_of_heads' must be between 1 and the 6 of H=6 heads that are not shared, got 7",
    ),
    "no head chosen": (
        MixtureOfHeads(shared_heads=2, top_k=0), CONCAT, {}, ParameterError,
        "top_k of 'mixture_of_heads' must be between 1 and the 4 of H=6 heads that are not shared, got 0",
    ),
    "nothing to choose from": (
        MixtureOfHeads(shared_heads=6, top_k=1), CONCAT, {}, ParameterError,
        "top_k of 'mixture_of_heads' must be between 0 and the 0 of H=6 heads that are not shared, got 1",
    ),
    "a mask of other length": (
        HeadMask([1, 0]), CONCAT, {}, ParameterError,
        "mask of 'head_mask' must hold a number for each of H=6 heads, got 2; "
        "pass combine=HeadMask(mask=…) with 6",
    ),
    "a misspelt parameter": (
        "gated_heads", {"gates": np.zeros((M, H)), **CONCAT}, {}, ParameterError,
        "parameters of 'gated_heads' must be: gate, weight, bias, got 'gates'; did you mean 'gate'?",
    ),
    "a missing parameter": (
        "weighted_sum", SHARED, {}, ParameterError,
        "parameters of 'weighted_sum' must be: logits, weight, bias, got none named 'logits'",
    ),
    "gates for elements": (
        "gated_elements", GATES, {}, ShapeError,
        "parameters['gate'] of 'gated_elements' must have shape (9, 24) for H=6, E=4 and M=9, "
        "got shape (9, 6)",
    ),
    "a weight for all heads": (
        "max", CONCAT, {}, ShapeError,
        "parameters['weight'] of 'max' must have shape (4, 9) for H=6, E=4 and M=9, got shape (24, 9)",
    ),
    "no generator": (
        "drop_head", CONCAT, {"training": True}, ParameterError,
        "rng must be an int or a Generator, combination 'drop_head' draws when training, got None",
    ),
    "other hidden states": (
        "gated_heads", GATES, {"hidden_states": HIDDEN[:, :4]}, ShapeError,
        "hidden_states must be (B, T, M) with B=3, T=5 and M=9, got shape (3, 4, 9)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_the_way_out(case):
    combination, parameters, keywords, error, message = REFUSED[case]
    keywords = {"heads": HEADS, "hidden_states": HIDDEN, **keywords}
    with pytest.raises(error, match=re.escape(message)):
        mhakit.combine(combination=combination, parameters=parameters, **keywords)


@pytest.mark.parametrize("record", mhakit.combinations(), ids=lambda record: record.name)
def test_hidden_states_are_asked_for_where_they_are_read(record):
    strategy = record.cls()
    parameters = {n: np.zeros(s.shape) for n, s in strategy.parameters(HeadShape(4, 2, 8)).items()}
    heads = np.zeros((1, 4, 3, 2))
    if not strategy.uses_hidden_states:
        assert mhakit.combine(heads, strategy, parameters).shape == (1, 3, 8)
        return
    message = f"hidden_states must be given, combination '{record.name}' reads the layer's input, got None"
    with pytest.raises(ParameterError, match=re.escape(message)):
        mhakit.combine(heads, strategy, parameters)


OPTIONS = [
    (lambda: GatedHeads(gate_bias=np.nan), "gate_bias of 'gated_heads' must be None or a finite number, got nan; "),
    (lambda: GatedElements(np.inf), "gate_bias of 'gated_elements' must be None or a finite number, got inf; "),
    (lambda: HeadMask([1, np.nan]), "mask of 'head_mask' must be None or a sequence of H finite numbers, got [1, nan]"),
    (lambda: HeadMask(3), "mask of 'head_mask' must be None or a sequence of H finite numbers, got 3"),
    (lambda: DropHead(1.0), "rate of 'drop_head' must be at least 0 and below 1, got 1.0; to leave heads out always, use head_mask"),
    (lambda: DropHead(-0.1), "rate of 'drop_head' must be at least 0 and below 1, got -0.1; "),
    (lambda: MixtureOfHeads(top_k=1.5), "top_k of 'mixture_of_heads' must be None or an int of at least 0, got 1.5"),
    (lambda: MixtureOfHeads(shared_heads=-1), "shared_heads of 'mixture_of_heads' must be None or an int of at least 0, got -1"),
    (lambda: Hadamard(block=12), "block of 'hadamard' must be None or a power of two, got 12"),
    (lambda: HeadNorm(eps=0), "eps of 'head_norm' must be above 0, got 0; a head that saw nothing is 0"),
    (lambda: Bilinear(rank=0), "rank of 'bilinear' must be None or an int of at least 1, got 0; None is a third of M"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), OPTIONS, ids=range(len(OPTIONS)))
def test_a_bad_option_is_refused_when_it_is_given(make, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        make()


def test_a_layer_of_odd_heads_cannot_be_differential():
    with pytest.raises(ParameterError, match="num_heads must be even for 'differential'"):
        mhakit.MultiHeadAttention(15, 3, combine=Differential())
