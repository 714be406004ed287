"""Combinations compared on frozen heads: on which words, and what is told of it."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

import mhakit
from mhakit import ParameterError, ShapeError
from mhakit.analysis import comparing
from mhakit.analysis.refitting import refit
from mhakit.errors import CombinationNotFound, DTypeError, MissingExtra
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec
from mhakit.registry import find

H, E, M = 4, 3, 8
B, T = 30, 7


@pytest.fixture
def layer():
    return mhakit.MultiHeadAttention(M, H, head_width=E, dtype=np.float64, rng=0)


@pytest.fixture
def x():
    return np.random.default_rng(1).standard_normal((B, T, M))


def held_out(seed=0):
    """Return the last fifth of the sequences in the order that a seed gives."""
    return np.random.default_rng(seed).permutation(B)[round(0.8 * B) :]


def test_the_layers_own_combination_recovers_all_and_averaging_does_not(layer, x):
    compared = mhakit.compare_combinations(layer, x, ["average", "concat_project", "max"])
    assert [row.name for row in compared] == ["average", "concat_project", "max"]
    assert compared["concat_project"].recovered == pytest.approx(1, abs=1e-6)
    for name in ("average", "max"):
        assert compared[name].recovered < compared[name].recovered_fitted < 0.9


def test_words_that_are_held_out_change_no_fit(layer, x):
    names = ["average", "weighted_sum"]
    before = mhakit.compare_combinations(layer, x, names)
    other = x.copy()
    other[held_out()] = np.random.default_rng(8).standard_normal((len(held_out()), T, M))
    after = mhakit.compare_combinations(layer, other, names)
    for old, new in zip(before, after, strict=True):
        assert new.recovered_fitted == old.recovered_fitted
        assert new.recovered != old.recovered


def test_padding_is_left_out_whatever_it_holds(layer, x):
    lengths = np.random.default_rng(9).integers(2, T + 1, B)
    plain, poisoned = x.copy(), x.copy()
    plain[np.arange(T) >= lengths[:, None]] = 0
    poisoned[np.arange(T) >= lengths[:, None]] = np.nan
    first, second = (
        mhakit.compare_combinations(layer, given, ["average", "gated_heads"], key_lengths=lengths)
        for given in (plain, poisoned)
    )
    assert [row.recovered for row in first] == [row.recovered for row in second]
    words_told = first.fitted_words + first.chosen_words + first.held_out_words
    assert words_told == lengths.sum()


def without_times(compared):
    return [{**row.to_dict(), "microseconds": None} for row in compared]


def test_the_same_seed_gives_the_same_figures_and_another_holds_out_others(layer, x):
    names = ["weighted_sum", "mixture_of_heads"]
    first, again, other = (
        mhakit.compare_combinations(layer, x, names, steps=5, seed=seed) for seed in (0, 0, 1)
    )
    assert without_times(first) == without_times(again)
    assert first["weighted_sum"].recovered != other["weighted_sum"].recovered


def test_a_combination_compares_the_same_alone_and_among_others(layer, x):
    alone = mhakit.compare_combinations(layer, x, ["weighted_sum"], steps=5)
    among = mhakit.compare_combinations(layer, x, ["max", "weighted_sum"], steps=5)
    assert without_times([alone["weighted_sum"]]) == without_times([among["weighted_sum"]])


def test_a_layer_of_16_bits_is_fitted_in_32(layer, x, monkeypatch):
    half = mhakit.MultiHeadAttention(M, H, head_width=E, dtype=np.float16, rng=0)
    half.set_parameters(layer.parameters())
    fitted_in = []

    def spy(strategy, start, fitted, choosing, steps):
        fitted_in.extend(array.dtype for array in (fitted.heads, fitted.target, *start.values()))
        return refit(strategy, start, fitted, choosing, steps)

    monkeypatch.setattr(comparing, "refit", spy)
    coarse = mhakit.compare_combinations(half, x.astype(np.float16), ["average"])["average"]
    assert set(fitted_in) == {np.dtype(np.float32)}
    fine = mhakit.compare_combinations(layer, x, ["average"])["average"]
    assert coarse.recovered == pytest.approx(fine.recovered, abs=1e-3)


def test_the_layer_stays_as_it_is(layer, x):
    before = {name: array.copy() for name, array in layer.parameters().items()}
    mhakit.compare_combinations(layer, x, ["average"])
    assert layer.combination.name == "concat_project"
    for name, array in layer.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def test_size_work_and_rank_are_those_of_the_cost(layer, x):
    (row,) = mhakit.compare_combinations(layer, x, ["average"])
    assert (row.parameters, row.output_rank) == (E * M + M, E)
    assert row.flops == pytest.approx(H * E + (H - 1) * E + 2 * E * M + M, rel=0.3)
    assert row.microseconds > 0


class Halting(HeadCombination):
    name = "halting"
    reference = "a test"

    def parameters(self, shape):
        return {"weight": ParameterSpec((shape.concat_width, shape.model_width), "ones")}

    def forward(self, heads, parameters, **_):
        concat = heads.swapaxes(1, 2).reshape(len(heads), heads.shape[2], -1)
        return concat @ parameters["weight"], None


class Bare(HeadCombination):
    name = "bare"
    reference = "a test"

    def plan(self, heads, parameters, **_):
        return CombinationPlan(groups=1)


class Lost(Halting):
    name = "lost"

    def plan(self, heads, parameters, **_):
        return CombinationPlan(heads.shape[1], parameters["weight"], head_weights=np.nan)


class LostForward(Halting):
    name = "lost forward"

    def forward(self, heads, parameters, **_):
        output, _ = super().forward(heads, parameters)
        return output * np.nan, heads

    def backward(self, d_output, residuals, parameters):
        return residuals, None, parameters


def test_one_that_cannot_be_compared_says_why_and_the_others_go_on(x):
    layer = mhakit.MultiHeadAttention(M, 3, head_width=E, dtype=np.float64, rng=0)
    compared = mhakit.compare_combinations(
        layer, x, ["differential", Halting, Lost, LostForward, "average"]
    )
    assert "num_heads must be even" in compared["differential"].why_not
    assert "must define backward to be differentiated" in compared["halting"].why_not
    lost = "what it makes of these heads must be finite, got NaN or inf"
    assert compared["lost"].why_not == compared["lost forward"].why_not == lost
    for name in ("differential", "halting", "lost", "lost forward"):
        assert compared[name].recovered is None
        assert repr(compared[name]) == f"<{name}: {compared[name].why_not}>"
    assert compared["average"].recovered is not None


def test_a_class_or_an_object_is_compared_and_one_that_learns_nothing_too(x):
    layer = mhakit.MultiHeadAttention(M, H, head_width=M, dtype=np.float64, rng=0)
    compared = mhakit.compare_combinations(layer, x, [Bare, find("bilinear")(rank=1)], steps=3)
    assert (compared["bare"].fit, compared["bare"].parameters) == ("nothing to fit", 0)
    assert compared["bilinear"].output_rank == 1


def test_all_that_are_installed_are_compared_by_default(layer, x):
    compared = mhakit.compare_combinations(layer, x, steps=1)
    assert [row.name for row in compared] == [record.name for record in mhakit.combinations()]
    told = json.dumps(compared.to_dict(), allow_nan=False)
    assert json.loads(told)["combinations"][1]["name"] == "average"


def test_what_is_printed_says_that_it_is_a_probe_and_how_many_words_there_were(layer, x):
    compared = mhakit.compare_combinations(layer, x, ["average"])
    first, note = repr(compared).split("\n")
    assert re.match(
        r"<average: recovers -?0\.\d\d \(0\.\d\d where fitted, by least squares\)", first
    )
    assert "A probe: the heads are frozen as they were for concat_project" in note
    assert "Fitted on 126 words, ridge and last step chosen on 42, measured on 42 others." in note
    assert len(compared) == 1
    with pytest.raises(KeyError, match="max"):
        compared["max"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"names": ["averge"]}, CombinationNotFound, "got 'averge'; did you mean 'average'"),
        ({"names": "average"}, ParameterError, r"names must be a list .* pass \['average'\]"),
        ({"x": np.ones((T, M))}, ShapeError, r"x must be \(B, T, M\) with M=8, got shape \(7, 8\)"),
        ({"x": np.ones((9, T, 5))}, ShapeError, r"with M=8, got shape \(9, 7, 5\)"),
        ({"x": np.ones((9, T, M), np.float32)}, DTypeError, "the layer's dtype, float64"),
        ({"x": np.ones((4, T, M))}, ParameterError, "at least 5 sequences, .* got B=4"),
        ({"x": np.ones((5, 2, M))}, ParameterError, "at least 8 to fit on, .*got 6, 2 and 2"),
        ({"steps": 0}, ParameterError, "steps must be"),
        ({"seed": -1}, ParameterError, "seed must be an int of at least 0, got -1"),
        ({"seed": None}, ParameterError, "seed must be an int of at least 0, got None"),
        ({"layer": 3}, ParameterError, "layer must be a MultiHeadAttention, got int"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(layer, x, change, error, message):
    with pytest.raises(error, match=message):
        mhakit.compare_combinations(**{"layer": layer, "x": x, "names": ["average"], **change})


def test_without_scipy_least_squares_work_and_steps_name_the_extra(layer, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert mhakit.compare_combinations(layer, x, ["average"])["average"].recovered is not None
    with pytest.raises(
        MissingExtra, match=r'refitting needs scipy.*pip install "mhakit\[models\]"'
    ):
        mhakit.compare_combinations(layer, x, ["weighted_sum"])
