"""The conformance kit: every installed combination keeps the laws, and each law catches its breach."""

from __future__ import annotations

import re

import pytest

import mhakit
from material.lawbreakers import WRONG, Mirror, Sound
from mhakit.errors import ParameterError, PluginError
from mhakit.plugin_api import CombinationPlan, HeadShape
from mhakit.testing import LAWS, ConformanceError, check_combination
from mhakit_builtins.average import Average
from mhakit_builtins.bilinear import Bilinear
from mhakit_builtins.drop_head import DropHead
from mhakit_builtins.gated import GatedElements, GatedHeads
from mhakit_builtins.head_mask import HeadMask
from mhakit_builtins.head_norm import HeadNorm
from mhakit_builtins.mixture_of_heads import MixtureOfHeads


@pytest.mark.parametrize("name", [record.name for record in mhakit.combinations()])
def test_every_installed_combination_keeps_every_law_on_every_backend(name):
    check_combination(name)


@pytest.mark.parametrize(
    "strategy",
    [
        DropHead(0.5),
        DropHead(0.95),
        MixtureOfHeads(shared_heads=1, top_k=1),
        MixtureOfHeads(shared_heads=0, top_k=2),
        MixtureOfHeads(shared_heads=4, top_k=0),
        Average(bias=False),
        Bilinear(rank=2, bias=False),
        GatedHeads(gate_bias=4, bias=False),
        GatedElements(gate_bias=4),
        HeadMask((1, 0, 0.5, 1)),
        HeadMask((0, 0, 0, 0)),
        HeadNorm(eps=0.01),
    ],
    ids=lambda strategy: strategy.name,
)
def test_combinations_of_other_options_keep_every_law(strategy):
    check_combination(strategy, seed=3)


def test_sizes_can_be_given_to_a_combination_that_takes_few():
    mask = HeadMask((1, 0, 0, 1, 1, 0, 1))
    with pytest.raises(
        ParameterError, match=r"shapes must be given for 'head_mask', whose validate takes none"
    ):
        check_combination(mask)
    check_combination(mask, shapes=[HeadShape(7, 2, 5)])
    with pytest.raises(ParameterError, match=r"shapes must be given for 'head_mask'"):
        check_combination(mask, shapes=[HeadShape(6, 2, 5)])


def test_a_law_of_another_name_is_refused_with_the_names():
    with pytest.raises(ParameterError, match=r"laws must be of inputs, shapes, .*, got 'speed'"):
        check_combination("average", laws=["speed"])
    with pytest.raises(PluginError, match=r"did you mean 'average'"):
        check_combination("averag")


def test_the_combination_that_the_wrong_ones_are_made_of_keeps_every_law():
    check_combination(Sound)


def test_each_law_has_a_combination_that_breaks_it():
    assert {law for law, _ in WRONG.values()} == set(LAWS)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda cls: cls.__name__)
def test_a_combination_that_breaks_one_law_is_told_that_law_and_no_other(wrong):
    law, told = WRONG[wrong]
    with pytest.raises(ConformanceError, match=told) as caught:
        check_combination(wrong)
    assert caught.value.law == law
    assert str(caught.value).startswith(f"{wrong.name!r} ({wrong.__name__}) breaks the law {law!r}")
    assert str(caught.value).endswith(f"The law: {LAWS[law]}.")
    check_combination(wrong, laws=set(LAWS) - {law})


def test_a_combination_that_writes_wherever_it_can_is_told_so_first():
    class Writing(Sound):
        def plan(self, heads, parameters, **given):
            parameters["gain"][...] = 1
            return super().plan(heads, parameters, **given)

    with pytest.raises(ConformanceError, match=re.escape("parameters['gain'] was written")):
        check_combination(Writing)


def test_a_plan_of_another_shape_breaks_the_law_of_shapes():
    class Narrow(Sound):
        def plan(self, heads, parameters, **given):
            return CombinationPlan(heads.shape[1], parameters["weight"][:, :-1])

    with pytest.raises(ConformanceError, match=r"the law 'shapes' .* must plan a projection to M="):
        check_combination(Narrow)


def test_a_backward_of_too_few_dimensions_is_a_broken_gradient():
    class Flat(Mirror):
        def backward(self, d_output, residuals, parameters):
            return None, None, {}

    with pytest.raises(ConformanceError, match=r"the law 'gradient' .* must return d_heads"):
        check_combination(Flat, laws=["gradient"])
