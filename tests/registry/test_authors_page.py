"""The authors' page has a row for every error of the registry."""

from __future__ import annotations

import re

import pytest

from material.broken_plugins import BROKEN
from material.distributions import FLOAT32, REGISTER_GOOD, SCORE_MOD, Unregistered, only
from material.places import ROOT
from mhakit import registry
from mhakit.errors import MhakitError, MhakitWarning, PluginError


def quoted_errors():
    """Return each error of the authors' page as a pattern, … standing for anything."""
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
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
