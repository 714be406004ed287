"""Measures against numbers worked out by hand, and pictures that are whole or not there."""

from __future__ import annotations

import re
import sys

import ml_dtypes
import numpy as np
import pytest

from mhakit import analysis
from mhakit.errors import DTypeError, MissingExtra, ParameterError, ShapeError

MEASURES = {
    "entropy": analysis.entropy,
    "relative_entropy": analysis.relative_entropy,
    "strongest_source": analysis.strongest_source,
    "confidence": analysis.confidence,
    "mean_distance": analysis.mean_distance,
    "offset_score": lambda weights: analysis.offset_score(weights, -1),
    "share_on": lambda weights: analysis.share_on(weights, np.arange(weights.shape[-1])[:1]),
}
PER_HEAD = {"confidence", "offset_score", "share_on"}

LOOKS_BACK = np.eye(5, k=-1)[None, None]
"""(1, 1, 5, 5): every target at the one before it; the first target sees nothing."""


@pytest.fixture(params=MEASURES)
def measure(request):
    return MEASURES[request.param]


@pytest.fixture
def weights():
    """(2, 3, 5, 7) weights, every row a sum of 1."""
    drawn = np.random.default_rng(0).random((2, 3, 5, 7))
    return drawn / drawn.sum(axis=-1, keepdims=True)


def test_entropy_is_0_for_one_source_and_log_n_for_n_alike():
    rows = np.array([[0, 1, 0, 0], [0.25] * 4, [0.5, 0, 0.5, 0]])
    np.testing.assert_allclose(analysis.entropy(rows), [0, np.log(4), np.log(2)])


def test_relative_entropy_counts_what_is_visible_or_what_it_is_told():
    rows = np.array([[0.25] * 4, [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    np.testing.assert_allclose(analysis.relative_entropy(rows), [1, 1, 0])
    np.testing.assert_allclose(analysis.relative_entropy(rows, visible=4), [1, 0.5, 0])
    np.testing.assert_allclose(analysis.relative_entropy(rows, visible=[4, 2, 1]), [1, 1, 0])


def test_the_strongest_source_is_the_first_of_equal_ones():
    assert analysis.strongest_source([[0.2, 0.4, 0.4], [0.0, 0.0, 1.0]]).tolist() == [1, 2]


def test_confidence_is_the_mean_of_the_largest_weights():
    assert analysis.confidence([[0.5, 0.5, 0.0], [0.1, 0.0, 0.9]]) == pytest.approx(0.7)


def test_mean_distance_counts_from_the_targets_position():
    rows = [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]
    assert analysis.mean_distance(rows).tolist() == [1.0, 0.0]
    assert analysis.mean_distance(rows, query_offset=2).tolist() == [1.0, 2.0]


def test_a_head_that_looks_back_scores_1_on_the_previous_word_and_0_elsewhere():
    assert analysis.offset_score(LOOKS_BACK, -1) == 1
    assert analysis.offset_score(LOOKS_BACK, 0) == 0
    assert analysis.offset_score(LOOKS_BACK, 1) == 0
    assert analysis.offset_score(LOOKS_BACK, 0, query_offset=-1) == 1


def test_a_target_without_such_a_source_does_not_count_against_the_head():
    rows = np.array([[1.0, 0.0], [1.0, 0.0]])  # target 0 has no word before it
    assert analysis.offset_score(rows, -1) == 1
    assert analysis.offset_score(rows, -5) == 0


def test_the_share_counts_a_source_once():
    rows = [[0.5, 0.25, 0.25]]
    assert analysis.share_on(rows, [0, 0, -1]) == 0.75
    assert analysis.share_on(rows, []) == 0


def test_a_dead_target_measures_0_and_changes_no_mean(measure, weights):
    dead = np.concatenate([weights, np.zeros((2, 3, 1, 7))], axis=2)
    with_dead, without = measure(dead), measure(weights)
    if measure in [MEASURES[name] for name in PER_HEAD]:
        np.testing.assert_allclose(with_dead, without)
    else:
        np.testing.assert_array_equal(with_dead[..., :-1], without)
        assert (with_dead[..., -1] == (-1 if measure is analysis.strongest_source else 0)).all()


def test_sources_that_are_hidden_change_nothing(measure, weights):
    hidden = np.concatenate([weights, np.zeros((2, 3, 5, 4))], axis=3)
    np.testing.assert_allclose(measure(hidden), measure(weights))


def test_each_head_is_measured_by_itself(measure, weights):
    np.testing.assert_allclose(measure(weights)[1, 2], measure(weights[1, 2]))


def test_nothing_to_look_at_and_nobody_to_look_are_no_error(measure):
    for T, S in ((3, 0), (0, 3), (0, 0)):
        assert np.isin(measure(np.zeros((2, T, S))), (-1, 0)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_every_float_dtype_is_measured_in_float64(measure, dtype):
    rows = np.array([[0.5, 0.5], [0.25, 0.75]], dtype=dtype)
    np.testing.assert_array_equal(measure(rows), measure(rows.astype(np.float64)))


def test_weights_that_are_no_floats_are_an_error(measure):
    with pytest.raises(DTypeError, match="weights must be an array of floats, got dtype int32"):
        measure(np.ones((2, 2), dtype=np.int32))


def test_weights_of_one_axis_are_an_error(measure):
    with pytest.raises(ShapeError, match=r"weights must have shape \(…, T, S\), got shape \(3,\)"):
        measure(np.ones(3))


def test_sources_out_of_range_or_no_integers_are_an_error():
    with pytest.raises(ParameterError, match=r"sources must be between -2 and 1 \(S=2\), got 2"):
        analysis.share_on([[0.5, 0.5]], [0, 2])
    with pytest.raises(ParameterError, match=r"sources must be a list of integers, got \[0.5\]"):
        analysis.share_on([[0.5, 0.5]], [0.5])


# ---- pictures ---------------------------------------------------------------------------------

TOKENS = ["[CLS]", "a_b", "$x$", "cost", "$y$", "漢", "[SEP]"]
STARTS = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}


def some_heads(L, H):
    drawn = np.random.default_rng(0).random((L, H, len(TOKENS), len(TOKENS)))
    return drawn / drawn.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".SVG"])
def test_a_picture_is_of_the_kind_its_name_says(tmp_path, suffix):
    written = analysis.draw_heads(some_heads(1, 2), TOKENS, tmp_path / f"heads{suffix}")
    assert written.read_bytes().startswith(STARTS[suffix.lower()])
    assert [path.name for path in tmp_path.iterdir()] == [f"heads{suffix}"]


def test_words_stand_on_both_axes_as_they_were_typed(tmp_path):
    written = analysis.draw_heads(
        some_heads(2, 3), TOKENS, tmp_path / "heads.svg", title="$x$ and $y$ of a_b"
    )
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", written.read_text(encoding="utf-8"))
    for token in TOKENS:
        assert shown.count(token) == 2 * 6, token
    assert "$x$ and $y$ of a_b" in shown


def test_heads_are_called_by_the_numbers_that_are_given(tmp_path):
    written = analysis.draw_heads(
        some_heads(1, 2), TOKENS, tmp_path / "heads.svg", layers=[5], heads=[2, 11]
    )
    text = written.read_text(encoding="utf-8")
    assert ">layer 5, head 2<" in text
    assert ">layer 5, head 11<" in text


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_the_same_heads_give_the_same_bytes(tmp_path, suffix):
    first, second = (
        analysis.draw_heads(some_heads(1, 1), TOKENS, tmp_path / f"{name}{suffix}").read_bytes()
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize("count", [1, 60, 300])
def test_a_picture_grows_with_the_sentence_and_stops_growing(tmp_path, count):
    from matplotlib.image import imread

    weights = np.full((1, 1, count, count), 1 / count)
    written = analysis.draw_heads(
        weights, ["word"] * count, tmp_path / "heads.png", title="t" * 999
    )
    height, width, _ = imread(written).shape
    assert width < 7_500
    assert height < 7_500


def test_the_users_own_settings_of_matplotlib_stay_and_do_not_matter(tmp_path):
    import matplotlib

    plain = analysis.draw_heads(some_heads(1, 1), TOKENS, tmp_path / "plain.svg").read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "svg.fonttype": "path"}):
        drawn = analysis.draw_heads(some_heads(1, 1), TOKENS, tmp_path / "own.svg").read_bytes()
        assert matplotlib.rcParams["svg.fonttype"] == "path"
    assert drawn == plain


def test_another_suffix_is_an_error(tmp_path):
    for name in ("heads.gif", "heads"):
        with pytest.raises(ParameterError, match=r"must end in one of \.svg, \.png, \.pdf, got "):
            analysis.draw_heads(some_heads(1, 1), TOKENS, tmp_path / name)


def test_a_directory_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ParameterError, match=r"must go to a directory that exists, got .* first"):
        analysis.picture_path(tmp_path / "nowhere" / "heads.svg")


def test_a_directory_in_the_place_of_the_file_is_an_error(tmp_path):
    (tmp_path / "heads.svg").mkdir()
    with pytest.raises(ParameterError, match="must name a file, got the directory"):
        analysis.picture_path(tmp_path / "heads.svg")


def test_a_drawing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(figure, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    old = tmp_path / "heads.svg"
    old.write_text("old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(ParameterError, match=r"where a file can be written, got .*: No space left"):
        analysis.draw_heads(some_heads(1, 1), TOKENS, old)
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_weights_that_do_not_fit_the_tokens_are_an_error(tmp_path):
    path = tmp_path / "heads.svg"
    with pytest.raises(ShapeError, match=r"\(L, H, T, T\) with T=6 as tokens has, got shape"):
        analysis.draw_heads(some_heads(1, 1), TOKENS[1:], path)
    with pytest.raises(ShapeError, match="must name the L=1 and H=2 of weights, got 1 and 1 names"):
        analysis.draw_heads(some_heads(1, 2), TOKENS, path, heads=[0])
    with pytest.raises(DTypeError, match="weights must be an array of floats, got dtype bool"):
        analysis.draw_heads(some_heads(1, 1) > 0, TOKENS, path)
    assert not path.exists()


def test_without_the_extra_the_error_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        MissingExtra, match=r'not installed; pip install "mhakit\[plot\]" brings it'
    ):
        analysis.draw_heads(some_heads(1, 1), TOKENS, tmp_path / "heads.svg")
