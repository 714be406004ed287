"""Score mods and mixings are registered, disputed and made like combinations."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from material.distributions import FLOAT32, MIXING, REGISTER_GOOD, SCORE_MOD, names
from mhakit import registry
from mhakit.errors import (
    MhakitWarning,
    MixingNotFound,
    ParameterError,
    PluginError,
    ScoreModNotFound,
)


def test_a_plugin_may_register_score_mods_and_mixings_and_no_combination(shelf):
    shelf.put("far-away", SCORE_MOD)
    shelf.put("further-away", MIXING)
    mods = {record.name: record for record in registry.installed_score_mods()}
    assert repr(mods["halve"]) == "<halve(divisor=2.0): far_away of far-away 1.2, a test>"
    mixings = {record.name: record for record in registry.installed_mixings()}
    assert repr(mixings["swap"]) == "<swap: further_away.Swap of further-away 1.2, a test>"
    assert type(registry.resolve_mixing("swap")) is mixings["swap"].cls
    assert "halve" not in names()


def test_one_name_may_stand_for_a_combination_and_for_a_score_mod(shelf):
    shelf.put("far-away", REGISTER_GOOD + SCORE_MOD.replace("'halve'", "'good'"))
    assert registry.find("good").name == "good"
    assert registry.make_score_mod("good", 4, FLOAT32, ())[1] == (2.0,)


ASK = {
    "score mod": (SCORE_MOD, "halve", lambda n: registry.make_score_mod(n, 4, FLOAT32, ())),
    "mixing": (MIXING, "swap", registry.find_mixing),
}


@pytest.mark.parametrize("noun", ASK)
def test_a_disputed_score_mod_or_mixing_is_refused_and_the_way_out_told(shelf, noun):
    source, name, ask = ASK[noun]
    shelf.put("left-hand", source)
    shelf.put("right-hand", source)
    with pytest.warns(MhakitWarning, match=f"{noun} '{name}' is registered by .* and .*-hand 1.2"):
        registry.installed()
    with pytest.raises(
        PluginError,
        match=rf"{noun} '{name}' must be registered once, got .*; uninstall one of them, or pass "
        r"the (function|class) itself in place of its name",
    ):
        ask(name)


@pytest.mark.parametrize(
    ("noun", "error", "wrong", "right"),
    [
        ("score mod", ScoreModNotFound, "Aliby", "alibi"),
        ("mixing", MixingNotFound, "talking_head", "talking_heads"),
    ],
)
def test_an_unknown_score_mod_or_mixing_is_told_the_nearest(noun, error, wrong, right):
    with pytest.raises(
        error,
        match=rf"{noun} must be an installed name, got '{wrong}'; did you mean '{right}'\? "
        rf"installed: .*{right}",
    ):
        ASK[noun][2](wrong)


def test_a_stranger_who_takes_alibi_is_left_out_and_ours_stays_usable(shelf):
    shelf.put("far-away", SCORE_MOD.replace("'halve'", "'alibi'"))
    told = r"halving of far-away 1\.2 .*: its name 'alibi' is one of mhakit's own"
    with pytest.warns(MhakitWarning, match=f"score mod left out: {told}; rename it"):
        mods = {record.name: record for record in registry.installed_score_mods()}
    assert mods["alibi"].distribution == "mhakit"


def test_a_score_mod_is_made_once_for_each_number_of_heads_dtype_and_options(shelf):
    calls = "calls = []\ndef halving(num_heads, dtype, divisor=2.0):\n    calls.append(1)\n    return half, (divisor,)\n"
    shelf.put("counting", calls + SCORE_MOD)
    for heads, options in ((4, ()), (4, ()), (8, ()), (4, (3.0,)), (4, (3.0,))):
        registry.make_score_mod("halve", heads, FLOAT32, options)
    assert len(sys.modules["counting"].calls) == 3
    function, args = registry.make_score_mod("halve", 4, FLOAT32, (np.ones(3),))
    assert function is sys.modules["counting"].half
    assert args[0].shape == (3,)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise OSError('no file')", r"must be made without an error, got OSError: no file"),
        ("return half", r"must be made as \(function, score_args\), .*, got <function half"),
        ("return half, [1.0]", r"must be made as \(function, score_args\), .*, got \(<function"),
    ],
)
def test_a_factory_that_breaks_its_rules_is_named(shelf, body, cause):
    shelf.put("far-away", f"def halving(num_heads, dtype):\n    {body}\n" + SCORE_MOD)
    with pytest.raises(PluginError, match=f"score mod 'halve' {cause}"):
        registry.make_score_mod("halve", 4, FLOAT32, ())


def test_options_that_a_factory_does_not_take_are_told_those_it_takes():
    with pytest.raises(
        ParameterError, match=r"score_args of 'softcap' must be \(cap=50.0\), got 2 "
    ):
        registry.make_score_mod("softcap", 4, FLOAT32, (1.0, 2.0))
    with pytest.raises(
        ParameterError,
        match=r"score_args of 't5_relative_position' must be \(table, max_distance=128\), got 0 ",
    ):
        registry.make_score_mod("t5_relative_position", 4, FLOAT32, ())
