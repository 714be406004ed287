"""The README's code runs as it stands, one block after the other."""

import re

import numpy as np

import mhakit
from material.places import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def test_every_block_runs_after_the_ones_before_it(capsys):
    names = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert "concat_project" in capsys.readouterr().out
    x = np.ones((2, 3, 8), np.float32)
    layer = mhakit.MultiHeadAttention(8, 2, combine=names["Loudness"], rng=0)
    plain = mhakit.MultiHeadAttention(8, 2, rng=0)
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-6)  # gains begin at 1


def test_there_are_as_many_blocks_as_the_text_speaks_of():
    assert len(BLOCKS) == 5


def test_files_that_it_points_to_are_there():
    text = (ROOT / "README.md").read_text("utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(targets) >= 5
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_catalogue_is_the_one_that_is_installed():
    text = (ROOT / "README.md").read_text("utf-8")
    table = text[text.index("| `combine=` |") : text.index("averaged = ")]
    papers = {}
    for row in re.findall(r"^\| (`[a-z].*)$", table, re.MULTILINE)[1:]:
        names, _, source = row.split(" | ")
        papers |= dict.fromkeys(re.findall("`(.*?)`", names), source)
    own = {r.name: r for r in mhakit.combinations() if r.distribution == "mhakit"}
    assert papers.keys() == own.keys()
    for name, source in papers.items():
        links = re.findall(r"\(https://(?:arxiv.org/abs/)?(.*?)\)", source)
        assert links or source.startswith(("as `average`", "a baseline")), name
        assert all(link in own[name].reference for link in links), name
