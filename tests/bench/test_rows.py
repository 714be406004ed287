"""The rows of `mhakit bench`: every target is in the table, and how rows are chosen."""

import pytest

from mhakit.bench.rows import ROWS, chosen
from mhakit.errors import ParameterError

WANTED = {
    "dense 1,12,2048,2048,64": {"torch": (1.2, None), "onnxruntime": (1.1, None)},
    "dense 1,8,4096,4096,128": {"torch": (1.15, None), "onnxruntime": (1.05, None), "matmul": (1.0, None)},
    "dense 8,12,128,128,64": {"torch": (1.3, None)},
    "dense 1,12,512,512,64": {"torch": (1.3, None)},
    "causal 1,12,2048,2048,64": {"torch": (1.35, 1.5)},
    "causal 1,8,4096,4096,128": {"torch": (1.35, 1.5)},
    "window 128,128 *,8192,8192,*": {"torch": (10, None)},
    "window 256,0 causal *": {"torch": (10, None)},
    "padded *": {"torch": (1.8, None)},
    "random mask *": {"torch": (1.1, None)},
    "additive bias *": {"torch": (1.1, None)},
    "score_mod ALiBi *": {"torch": (1.1, None)},
    "float64 dense *": {"torch": (1.4, None)},
    "float64 causal *": {"torch": (1.4, None)},
    "float16 dense *": {"torch": (1.6, None)},
    "float16 causal *": {"torch": (1.6, None)},
    "bfloat16 dense *": {"torch": (1.2, None)},
    "bfloat16 causal *": {"torch": (1.2, None)},
    "grouped causal 1,32/8,2048,2048,128": {"torch": (1.4, None)},
    "decoding 1,32/8,1,8192,128": {"torch": (5, 7), "read": (0.5, 0.7)},
    "decoding 1,32,1,4096,128": {"torch": (2, 2.5), "read": (0.5, 0.7)},
    "decoding 8,32/8,1,2048,128": {"torch": (2.7, 3.5), "read": (0.5, 0.7)},
    **{f"odd *,333,1000,{D}": {"torch": (1.1, None)} for D in (40, 72, 80, 96, 256)},
    **{f"odd *,{T},{S},64": {"torch": (1.1, None)} for T in (17, 333, 1000) for S in (17, 333, 1000)},
    "tiny 1,8,4,4,16": {"torch": (1.1, 1.5)},
    "tiny 1,12,16,16,32": {"torch": (1.1, 1.5)},
    **{f"layer{w} {shape}": {"torch": (1.15, None)} for w in ("", " and weights") for shape in ("1,512", "8,128", "1,2048")},
    "combine average 12,64,512": {"numpy": (1.0, None)},
    "combine concat_project 12,64,512": {"numpy": (1.0, None)},
}  # fmt: skip


@pytest.mark.parametrize("pattern", list(WANTED))
def test_the_table_holds_every_target(pattern):
    rows = [row for row in ROWS if row.name == pattern] or list(chosen([pattern]))
    assert len(rows) == 1, rows
    goals = {g.against: (g.target, g.stretch) for g in rows[0].goals if g.target is not None}
    assert goals == WANTED[pattern]


def test_every_name_is_one_row_and_every_row_but_memorys_is_wanted():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    timed = [name for name in names if not name.startswith("memory")]
    assert len(timed) == len(WANTED)


def test_a_pattern_is_part_of_a_name_or_a_whole_name_with_wildcards():
    assert [row.name for row in chosen(["TINY"])] == ["tiny 1,8,4,4,16", "tiny 1,12,16,16,32"]
    assert chosen(["padded", "tiny"])[0].family == "padded"  # in the table's order, each once
    assert len(chosen(["tiny", "tiny 1,8*"])) == 2
    assert chosen([]) == ROWS


def test_an_unknown_pattern_is_told_the_nearest_row():
    with pytest.raises(
        ParameterError, match=r"only must be part of a row's name, got 'tinny'; the nearest is 'tiny', and --list shows all"
    ):  # fmt: skip
        chosen(["tinny"])
