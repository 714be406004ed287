"""Which plugins are found, which are left out, and what is said about them."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from mhakit import registry
from mhakit.errors import (
    CombinationNotFound,
    MhakitError,
    MhakitWarning,
    MixingNotFound,
    ParameterError,
    PluginError,
    ScoreModNotFound,
)
from mhakit.plugin_api import CombinationPlan, HeadCombination

FLOAT32 = np.dtype(np.float32)
HEADER = """
from abc import abstractmethod
from mhakit.plugin_api import CombinationPlan, HeadCombination, HeadMixing, hookimpl

class Good(HeadCombination):
    name = "good"
    reference = "a test"

    def plan(self, heads, parameters, **_):
        return CombinationPlan(groups=1)

class Other(Good):
    name = "other"

class Swap(HeadMixing):
    name = "swap"
    reference = "a test"

    def mix_weights(self, weights, parameters, **_):
        return weights[:, ::-1]

def half(score, b, h, t, s, divisor):
    return score / divisor

def halving(num_heads, dtype, divisor=2.0):
    return half, (dtype.type(divisor),)

"""
REGISTER_GOOD = """
@hookimpl
def mhakit_register_combinations(register):
    register(Good)
"""
SCORE_MOD = """
@hookimpl
def mhakit_register_score_mods(register):
    register('halve', halving, reference='a test')
"""
MIXING = """
@hookimpl
def mhakit_register_mixings(register):
    register(Swap)
"""


class Unregistered(HeadCombination):
    name = "unregistered"
    reference = "a test"

    def plan(self, heads, parameters, **_):
        return CombinationPlan(groups=1)


class Shelf:
    """A folder on sys.path that distributions are put into."""

    def __init__(self, path):
        self.path = path
        self.modules = []

    def put(self, distribution, source, *, entries=None, module=None, version="1.2"):
        module = module or distribution.replace("-", "_").lower()
        lines = entries or [f"{module} = {module}"]
        info = self.path / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text("\n".join(["[mhakit]", *lines]) + "\n")
        (self.path / f"{module}.py").write_text(HEADER + source)
        self.modules.append(module)


@pytest.fixture(autouse=True)
def fresh_registry():
    registry.reset()
    yield
    registry.reset()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    made = Shelf(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield made
    for module in made.modules:
        sys.modules.pop(module, None)


def only(monkeypatch, *paths):
    """Let the registry see the distributions of these folders alone."""
    everywhere = metadata.distributions
    monkeypatch.setattr(
        metadata, "distributions", lambda: everywhere(path=[str(path) for path in paths])
    )


def names():
    return [record.name for record in registry.installed()]


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


BROKEN = {
    "import": (
        "import no_such_module_at_all",
        r"ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "syntax": ("def (:", r"SyntaxError: "),
    "exit": ("raise SystemExit('bye')", r"SystemExit: bye"),
    "hook": (
        "@hookimpl\ndef mhakit_register_combinations(register):\n"
        "    register(Good)\n    raise ZeroDivisionError('halfway')",
        r"ZeroDivisionError: halfway",
    ),
    "misspelt": (
        "@hookimpl\ndef mhakit_regster_combinations(register):\n    register(Good)",
        r"its hook must be named mhakit_register_combinations, mhakit_register_score_mods or "
        r"mhakit_register_mixings, got mhakit_regster_combinations",
    ),
    "argument": (
        "@hookimpl\ndef mhakit_register_combinations(register, colour):\n    register(Good)",
        r"its hook must take the one argument register; .*mhakit_register_combinations.*colour",
    ),
    "unmarked": (
        "def mhakit_register_combinations(register):\n    register(Good)",
        r"it must have a function marked @hookimpl, mhakit_register_combinations, .*, got none",
    ),
    "nothing": (
        "@hookimpl\ndef mhakit_register_combinations(register):\n    pass",
        r"it must register something, got nothing; its hook must call register",
    ),
    "no subclass": (
        REGISTER_GOOD + "    register(int)",
        r"a combination must be a subclass of HeadCombination, got <class 'int'>",
    ),
    "an object": (
        REGISTER_GOOD + "    register(Good())",
        r"a combination must be a subclass of HeadCombination, got <.*Good object",
    ),
    "no name": (
        "class Bare(HeadCombination):\n    reference = 'a test'\n    plan = Good.plan\n"
        + REGISTER_GOOD
        + "    register(Bare)",
        r"combination Bare must have the class attribute name, a string that is not empty, got N",
    ),
    "no reference": (
        "class Bare(HeadCombination):\n    name = 'bare'\n    plan = Good.plan\n"
        + REGISTER_GOOD
        + "    register(Bare)",
        r"combination Bare must have the class attribute reference",
    ),
    "nothing to run": (
        "class Idle(HeadCombination):\n    name = 'idle'\n    reference = 'a test'\n"
        + REGISTER_GOOD
        + "    register(Idle)",
        r"combination 'idle' must define plan or forward, got neither",
    ),
    "no default": (
        "class Picky(Good):\n    def __init__(self, k, j=1): pass\n"
        + REGISTER_GOOD
        + "    register(Picky)",
        r"combination 'good' must have a default for every constructor argument, got none for k",
    ),
    "abstract": (
        "class Unfinished(Good):\n    @abstractmethod\n    def mix(self): ...\n"
        + REGISTER_GOOD
        + "    register(Unfinished)",
        r"combination 'good' must define mix, got an abstract class",
    ),
    "twins": (
        "class Twin(Good): pass\n" + REGISTER_GOOD + "    register(Twin)",
        r"it must register 'good' once, got two classes of that name",
    ),
    "asks": (
        "@hookimpl\ndef mhakit_register_combinations(register):\n"
        "    from mhakit import registry\n    registry.installed()",
        r"what is installed must not be asked for while plugins register it",
    ),
    "no reference of a score mod": (
        SCORE_MOD.replace(", reference='a test'", ""),
        r"TypeError: .*missing 1 required keyword-only argument: 'reference'",
    ),
    "empty name of a score mod": (
        SCORE_MOD.replace("'halve'", "''"),
        r"a score mod's name must be a string that is not empty, got ''",
    ),
    "no factory": (
        SCORE_MOD.replace("halving", "3"),
        r"score mod 'halve' must have a factory \(num_heads, dtype, \*options\) -> .*, got 3",
    ),
    "a function in place of its factory": (
        SCORE_MOD.replace("halving", "lambda score: score"),
        r"score mod 'halve' must have a factory that takes \(num_heads, dtype, \*options\), got \(score\)",
    ),
    "twins of a score mod": (
        SCORE_MOD + "    register('halve', half, reference='a test')",
        r"it must register 'halve' once, got two factories of that name",
    ),
    "no mixing": (
        MIXING.replace("Swap", "Good"),
        r"a mixing must be a subclass of HeadMixing, got <class '.*Good'>",
    ),
    "a mixing that does nothing": (
        "class Idle(HeadMixing):\n    name = 'idle'\n    reference = 'a test'\n"
        + MIXING.replace("Swap", "Idle"),
        r"mixing 'idle' must define mix_scores or mix_weights, got neither",
    ),
    "a mixing without a default": (
        "class Picky(Swap):\n    def __init__(self, k): pass\n" + MIXING.replace("Swap", "Picky"),
        r"mixing 'swap' must have a default for every constructor argument, got none for k",
    ),
}


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


def test_a_warning_turned_into_an_error_leaves_a_whole_registry(shelf):
    shelf.put("broken-one", "raise RuntimeError('no')")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MhakitWarning, match=r"broken-one .*RuntimeError: no"):
            registry.installed()
        assert "average" in names()


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


def quoted_errors():
    """Return each error of the authors' page as a pattern, … standing for anything."""
    text = (Path(__file__).parents[1] / "plugins" / "README.md").read_text(encoding="utf-8")
    tables = text[text.index("| why a plugin was left out") :]
    rows = re.findall(r"^\| (`.*?`) \| ", tables, re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall("`(.*?)`", row)]
    return {quote: re.escape(quote).replace("…", ".*") + ".*" for quote in quotes}


def every_error(shelf, tmp_path, monkeypatch):
    """Yield everything that the registry says, once each."""
    for place, (source, _) in enumerate(BROKEN.values()):
        shelf.put(f"broken-{place}", source)
    shelf.put("garbled", "", entries=["no equals sign here"])
    shelf.put("left-hand", REGISTER_GOOD)
    shelf.put("right-hand", REGISTER_GOOD)
    shelf.put("thief", SCORE_MOD.replace("'halve'", "'alibi'"))
    for name, body in (("raises", "raise OSError('no file')"), ("returns", "return half")):
        source = f"def halving(num_heads, dtype):\n    {body}\n"
        shelf.put(name, source + SCORE_MOD.replace("'halve'", repr(name)))
    with pytest.warns(MhakitWarning) as caught:
        registry.installed()
    for warning in map(str, (caught_one.message for caught_one in caught)):
        yield re.sub(r"^plugin left out: \S+( \S+ \(entry point \S+\))?: ", "", warning)

    class Fragile(Unregistered):
        def __init__(self):
            raise OSError("no file")

    for ask in (
        lambda: registry.find("Avrage"),
        lambda: registry.find("good"),
        lambda: registry.resolve(3),
        lambda: registry.resolve(Fragile),
        lambda: registry.make_score_mod("softcap", 4, FLOAT32, (1.0, 2.0)),
        lambda: registry.make_score_mod("raises", 4, FLOAT32, ()),
        lambda: registry.make_score_mod("returns", 4, FLOAT32, ()),
    ):
        with pytest.raises(MhakitError) as raised:
            ask()
        yield str(raised.value)
    registry.reset()
    only(monkeypatch, tmp_path / "nothing")
    with pytest.raises(PluginError) as raised:
        registry.installed()
    yield str(raised.value)


def test_the_authors_page_has_a_row_for_every_error_and_no_other(shelf, tmp_path, monkeypatch):
    quoted, used = quoted_errors(), set()
    assert len(quoted) >= 27
    for error in every_error(shelf, tmp_path, monkeypatch):
        rows = {quote for quote, pattern in quoted.items() if re.fullmatch(pattern, error)}
        assert rows, error
        used |= rows
    assert used == quoted.keys()
