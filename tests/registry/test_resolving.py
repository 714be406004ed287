"""A name, a class and an object all stand for a strategy, and nothing else does."""

from __future__ import annotations

import pytest

from material.distributions import Unregistered
from mhakit import registry
from mhakit.errors import ParameterError, PluginError


def test_a_name_a_class_and_an_object_all_stand_for_a_combination():
    average = registry.find("average")
    assert type(registry.resolve("average")) is average
    assert type(registry.resolve(average)) is average
    made = Unregistered()
    assert registry.resolve(made) is made


@pytest.mark.parametrize("value", [3, None, b"average"])
def test_what_stands_for_no_combination_is_refused(value):
    with pytest.raises(
        ParameterError,
        match=r"combination must be an installed name, a HeadCombination class or an object of one",
    ):
        registry.resolve(value)


def test_a_class_that_breaks_the_rules_is_refused_before_it_is_built():
    with pytest.raises(PluginError, match=r"must be a subclass of HeadCombination, got .*'dict'"):
        registry.resolve(dict)


def test_a_constructor_that_fails_is_named():
    class Fragile(Unregistered):
        def __init__(self):
            raise OSError("no file")

    with pytest.raises(
        PluginError,
        match=r"combination 'unregistered' must be built by .*Fragile\(\), got OSError: no file",
    ):
        registry.resolve(Fragile)


def test_an_object_may_have_options_without_defaults():
    class Optional(Unregistered):
        def __init__(self, k):
            self.k = k

    assert registry.resolve(Optional(3)).k == 3


def test_a_mixing_is_found_by_name_class_and_object_and_by_nothing_else():
    talking = registry.find_mixing("talking_heads")
    assert type(registry.resolve_mixing(talking)) is talking
    made = talking(weights=False)
    assert registry.resolve_mixing(made) is made
    with pytest.raises(
        ParameterError,
        match=r"mixing must be an installed name, a HeadMixing class or an object of one, got 3",
    ):
        registry.resolve_mixing(3)
    with pytest.raises(PluginError, match=r"a mixing must be a subclass of HeadMixing, got .*dict"):
        registry.resolve_mixing(dict)
