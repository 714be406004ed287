"""Names that more than one distribution registers."""

from __future__ import annotations

import pytest

from material.distributions import REGISTER_GOOD, Shelf, names
from mhakit import registry
from mhakit.errors import MhakitWarning, PluginError


def test_a_name_that_two_distributions_register_is_refused_and_others_stay_usable(shelf):
    both = REGISTER_GOOD + "    register(type('Own', (Good,), {'name': __name__}))"
    shelf.put("left-hand", both)
    shelf.put("right-hand", both)
    parties = r"Good of left-hand 1\.2 \(entry point 'left_hand'\) and Good of right-hand 1\.2"
    swapped = r"Good of right-hand 1\.2 \(entry point 'right_hand'\) and Good of left-hand 1\.2"
    either = f"({parties}|{swapped})"
    with pytest.warns(MhakitWarning, match=f"combination 'good' is registered by {either}"):
        found = names()
    assert {"average", "concat_project", "left_hand", "right_hand"} <= set(found)
    assert "good" not in found
    with pytest.raises(
        PluginError, match=f"combination 'good' must be registered once, got {either}"
    ):
        registry.find("good")
    assert registry.find("left_hand").__name__ == "Own"


def test_a_stranger_who_takes_a_name_of_our_own_is_left_out_and_ours_stays_usable(shelf):
    shelf.put("far-away", REGISTER_GOOD + "    register(type('Own', (Good,), {'name': 'average'}))")
    told = r"Own of far-away 1\.2 \(entry point 'far_away'\): its name 'average' is one of mhakit's own"
    with pytest.warns(MhakitWarning, match=f"combination left out: {told}; rename it"):
        assert {"average", "good"} <= set(names())
    assert registry.find("average").__module__ == "mhakit_builtins.average"


def test_equal_entry_point_names_of_two_distributions_both_load(shelf):
    shelf.put("first-come", REGISTER_GOOD, entries=["same = first_come"])
    shelf.put(
        "second-come",
        "@hookimpl\ndef mhakit_register_combinations(register): register(Other)",
        entries=["same = second_come"],
    )
    assert {"good", "other"} <= set(names())


def test_a_distribution_that_lies_on_the_path_twice_is_no_conflict(shelf, tmp_path, monkeypatch):
    shelf.put("far-away", REGISTER_GOOD)
    again = Shelf(tmp_path / "again")
    again.put("Far_Away", REGISTER_GOOD, module="far_away", version="1.1")
    monkeypatch.syspath_prepend(again.path)
    record = next(record for record in registry.installed() if record.name == "good")
    assert record.version == "1.1"


def test_a_class_that_one_distribution_names_twice_is_no_conflict(shelf):
    shelf.put("far-away", REGISTER_GOOD, entries=["one = far_away", "two = far_away"])
    assert registry.find("good").__module__ == "far_away"
