"""A plugin that is broken is left out with its cause, and the others stay."""

from __future__ import annotations

import warnings

import pytest

from material.broken_plugins import BROKEN
from material.distributions import names
from mhakit import registry
from mhakit.errors import CombinationNotFound, MhakitWarning


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_left_out_with_its_cause_and_the_others_stay(shelf, fault):
    source, cause = BROKEN[fault]
    shelf.put("broken-one", source)
    shelf.put("whole-one", "@hookimpl\ndef mhakit_register_combinations(register): register(Other)")
    told = rf"broken-one 1\.2 \(entry point 'broken_one'\): .*{cause}"
    with pytest.warns(MhakitWarning, match="plugin left out: " + told) as caught:
        found = names()
    assert len(caught) == 1
    assert {"average", "concat_project", "other"} <= set(found)
    assert "good" not in found
    with pytest.raises(CombinationNotFound, match=rf"got 'good'.*left out: {told}"):
        registry.find("good")


def test_entry_points_that_cannot_be_read_are_reported(shelf):
    shelf.put("garbled", "", entries=["no equals sign here"])
    with pytest.warns(MhakitWarning, match=r"garbled: its entry points cannot be read: "):
        assert "average" in names()


def test_a_warning_turned_into_an_error_leaves_a_whole_registry(shelf):
    shelf.put("broken-one", "raise RuntimeError('no')")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MhakitWarning, match=r"broken-one .*RuntimeError: no"):
            registry.installed()
        assert "average" in names()
