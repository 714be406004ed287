"""Which plugins are found, when they are asked, and what is said where a name is unknown."""

from __future__ import annotations

import sys
import threading

import pytest

from material.distributions import REGISTER_GOOD, names, only
from mhakit import registry
from mhakit.errors import CombinationNotFound, PluginError


def test_our_own_combinations_are_found_by_entry_point():
    records = {record.name: record for record in registry.installed()}
    assert records["average"].distribution == "mhakit"
    assert records["average"].reference == "arXiv:1710.10903"
    assert records["concat_project"].module == "mhakit_builtins.concat_project"
    assert registry.find("concat_project") is records["concat_project"].cls


def test_a_record_says_where_a_combination_came_from(shelf):
    shelf.put("far-away", REGISTER_GOOD)
    (record,) = [record for record in registry.installed() if record.name == "good"]
    assert repr(record) == "<good: far_away.Good of far-away 1.2, a test>"


def test_an_unknown_name_is_told_the_nearest_and_all_that_are_installed():
    with pytest.raises(
        CombinationNotFound,
        match=r"must be an installed name, got 'Avrage'; did you mean 'average'\? "
        r"installed: attention_over_heads, average,.*concat_project",
    ):
        registry.find("Avrage")


def test_a_name_that_resembles_none_is_told_what_is_installed():
    with pytest.raises(CombinationNotFound, match=r"got 'xyz'; installed: attention_over_heads,"):
        registry.find("xyz")


def test_a_plugin_may_register_several_combinations(shelf):
    shelf.put("several", REGISTER_GOOD + "    register(Other)")
    assert {"good", "other"} <= set(names())


def test_a_checkout_that_was_never_installed_is_told_to_install(tmp_path, monkeypatch):
    only(monkeypatch, tmp_path)
    for ask in (registry.installed, lambda: registry.find("average")):
        with pytest.raises(
            PluginError,
            match=r"mhakit must be installed .*no entry point of the group 'mhakit'; run `pip inst",
        ):
            ask()


def test_a_stranger_alone_is_found_and_the_rest_is_told_to_install(shelf, monkeypatch):
    only(monkeypatch, shelf.path)
    shelf.put("far-away", REGISTER_GOOD)
    assert names() == ["good"]
    with pytest.raises(
        CombinationNotFound, match=r"installed: good; mhakit's own are missing .*`pip install -e"
    ):
        registry.find("average")


def test_hooks_run_once_whatever_the_number_of_threads_and_questions(shelf):
    shelf.put("counting", "calls = []\n" + REGISTER_GOOD + "    calls.append(1)")
    ready = threading.Barrier(4)
    found = []

    def ask():
        ready.wait()
        found.append(registry.find("good"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.find("good")
    assert len(found) == 4
    assert len(sys.modules["counting"].calls) == 1


def test_reset_lets_a_plugin_installed_meanwhile_be_found(shelf):
    before = names()
    shelf.put("late", REGISTER_GOOD)
    assert names() == before
    registry.reset()
    assert "good" in names()
