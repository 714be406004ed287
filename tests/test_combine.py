"""Combining heads: the built-in strategies, what a plan may say, and what is refused."""

from __future__ import annotations

import re

import ml_dtypes
import numba
import numpy as np
import pytest

import mhakit
from mhakit.backends.cpu import combination as cpu
from mhakit.backends.cpu import launch
from mhakit.errors import (
    DTypeError,
    ParameterError,
    PluginError,
    ShapeError,
)
from mhakit.plugin_api import CombinationPlan, HeadCombination, HeadShape, ParameterSpec
from mhakit.problem import computation_dtype

B, H, T, E, M = 2, 6, 5, 7, 9


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def learned(inner, dtype=np.float64):
    return {"weight": draw(inner, M, seed=1, dtype=dtype), "bias": draw(M, seed=2, dtype=dtype)}


def assert_within_budget(actual, formula, *arrays):
    """Allow twice the error of the formula in the computation dtype and of one rounding."""
    real = computation_dtype(actual.dtype)
    finest = np.longdouble if real == np.float64 else np.float64
    exact = formula(*(array.astype(finest) for array in arrays))
    plain = formula(*(array.astype(real) for array in arrays)).astype(finest)
    rounding = np.abs(exact).max() * float(ml_dtypes.finfo(actual.dtype).eps) / 2
    allowed = 2 * (np.abs(plain - exact).max() + rounding)
    assert actual.shape == exact.shape
    assert np.abs(actual.astype(finest) - exact).max() <= allowed


class Planned(HeadCombination):
    """Any plan at all, given when it is made."""

    name = "planned"
    reference = "a test"

    def __init__(self, result=None, specs=None, **fields):
        self.result = CombinationPlan(**fields) if fields else result
        self.specs = specs or {}

    def parameters(self, shape):
        return self.specs

    def plan(self, heads, parameters, **given):
        self.given = given
        return self.result


def formula_of(plan, factors):
    """Return the plan's formula, in plain NumPy, on arrays of any dtype."""

    def formula(heads, factors, weight, bias):
        weighted = np.where(factors == 0, 0, heads) * factors
        b, h, t, e = heads.shape
        grouped = weighted.reshape(b, plan.groups, h // plan.groups, t, e)
        reduced = grouped.sum(axis=2) if plan.reduce == "sum" else grouped.max(axis=2)
        combined = reduced.swapaxes(1, 2).reshape(b, t, -1)
        combined = combined if plan.weight is None else combined @ weight
        return combined if plan.bias is None else combined + bias

    return lambda heads, weight, bias: formula(heads, factors.astype(heads.dtype), weight, bias)


# ---- the strategies that come with the package -----------------------------------------------


def test_concat_project_lays_the_heads_side_by_side_and_projects(backend, dtype):
    heads, parameters = draw(B, H, T, E, dtype=dtype), learned(H * E, dtype)
    assert_within_budget(
        mhakit.combine(heads, "concat_project", parameters, backend=backend),
        lambda z, w, b: z.swapaxes(1, 2).reshape(B, T, H * E) @ w + b,
        heads,
        *parameters.values(),
    )


def test_average_projects_the_mean_of_the_heads(backend, dtype):
    heads, parameters = draw(B, H, T, E, dtype=dtype), learned(E, dtype)
    assert_within_budget(
        mhakit.combine(heads, "average", parameters, backend=backend),
        lambda z, w, b: (z * (1 / z.dtype.type(H))).sum(axis=1) @ w + b,
        heads,
        *parameters.values(),
    )


@pytest.mark.parametrize("name", ["concat_project", "average"])
def test_the_folded_matrix_does_the_same(name):
    (cls,) = [record.cls for record in mhakit.combinations() if record.name == name]
    shape = HeadShape(H, E, M)
    parameters = {n: draw(*s.shape) for n, s in cls().parameters(shape).items()}
    heads = draw(B, H, T, E)
    weight, bias = cls().fold(parameters, shape)
    np.testing.assert_allclose(
        heads.swapaxes(1, 2).reshape(B, T, H * E) @ weight + bias,
        mhakit.combine(heads, name, parameters),
        rtol=1e-13,
        atol=1e-13,
    )


@pytest.mark.parametrize("name", ["concat_project", "average"])
def test_the_bias_can_be_left_out(name):
    (cls,) = [record.cls for record in mhakit.combinations() if record.name == name]
    parameters = {"weight": np.zeros((H * E if name == "concat_project" else E, M))}
    assert not mhakit.combine(draw(B, H, T, E), cls(bias=False), parameters).any()
    assert cls(bias=False).fold(parameters, HeadShape(H, E, M))[1] is None


# ---- what a plan may say ---------------------------------------------------------------------

FACTORS = {
    "none": None,
    "a number": 0.37,
    "by head": draw(H, 1, 1, seed=3),
    "by batch and head": draw(B, H, 1, 1, seed=3),
    "by word": draw(B, H, T, 1, seed=3),
    "by element": draw(B, H, T, E, seed=3),
    "by channel": draw(1, 1, 1, E, seed=3),
    "mask": np.arange(H).reshape(H, 1, 1) % 2 == 0,
}


@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("groups", [1, 2, H])
@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("form", ["serial", "parallel"], indirect=True)
def test_a_plan_weighs_reduces_and_projects(form, factors, groups, reduce, projected):
    for real in (np.float64, np.float32):
        heads = draw(B, H, T, E, dtype=real)
        weight, bias = learned(groups * E, real).values()
        given = FACTORS[factors]
        plan = {
            "groups": groups,
            "reduce": reduce,
            "head_weights": given.astype(real) if factors.startswith("by") else given,
            "weight": weight if projected else None,
            "bias": bias if projected else None,
        }
        strategy = Planned(**plan)
        used = np.asarray(1 if given is None else plan["head_weights"])
        formula = formula_of(strategy.result, used if used.dtype == bool else used.astype(real))
        for backend in ("cpu", "reference"):
            actual = mhakit.combine(heads, strategy, backend=backend)
            assert_within_budget(actual, formula, heads, weight, bias)


@pytest.mark.parametrize("rows", [2 * E, 2 * E + 1])
def test_the_bias_is_added_once_where_it_rides_on_the_product_and_where_it_does_not(dtype, rows):
    heads, parameters = draw(1, H, rows, E, dtype=dtype), learned(E, dtype)
    parameters["bias"][2] = np.inf
    assert cpu._bias_rides(CombinationPlan(1, **parameters), rows, E) == (rows > 2 * E)
    result = mhakit.combine(heads, "average", parameters)
    assert np.isinf(result[..., 2]).all()
    parameters["bias"][2] = 0
    assert_within_budget(
        mhakit.combine(heads, "average", parameters),
        lambda z, w, b: (z * (1 / z.dtype.type(H))).sum(axis=1) @ w + b,
        heads,
        *parameters.values(),
    )
    assert np.isfinite(np.delete(result, 2, axis=-1)).all()


@pytest.mark.parametrize("factors", ["by head", "by element"])
def test_a_head_of_weight_zero_is_left_out_whatever_it_holds(backend, factors):
    heads = draw(B, H, T, E)
    weights = np.ones((H, 1, 1)) if factors == "by head" else np.ones((B, H, T, E))
    weights[..., 2, :, :] = 0
    strategy = Planned(groups=2, head_weights=weights)
    clean = mhakit.combine(heads, strategy, backend=backend)
    for garbage in (np.nan, np.inf, -np.inf):
        heads[:, 2] = garbage
        np.testing.assert_array_equal(mhakit.combine(heads, strategy, backend=backend), clean)
    heads[0, 1, 3, 4] = np.nan  # a head that is weighed is not hidden
    assert np.argwhere(np.isnan(mhakit.combine(heads, strategy, backend=backend))).tolist() == [
        [0, 3, 4]
    ]


def test_a_nan_wins_the_maximum(backend):
    heads = draw(B, H, T, E)
    for h in (0, 3, H - 1):
        heads[0, h, h % T, 1] = np.nan
    result = mhakit.combine(heads, Planned(groups=1, reduce="max"), backend=backend)
    np.testing.assert_array_equal(result, heads.max(axis=1))


def test_no_words_and_no_batch_give_an_empty_result(backend, dtype):
    for shape in ((B, H, 0, E), (0, H, T, E)):
        for name, inner in (("concat_project", H * E), ("average", E)):
            result = mhakit.combine(np.empty(shape, dtype), name, learned(inner), backend=backend)
            assert (result.shape, result.dtype) == ((shape[0], shape[2], M), dtype)


def test_the_batch_axis_may_be_left_out(backend):
    heads, parameters = draw(B, H, T, E), learned(H * E)
    whole = mhakit.combine(heads, "concat_project", parameters, backend=backend)
    alone = mhakit.combine(heads[1], "concat_project", parameters, backend=backend)
    np.testing.assert_allclose(alone, whole[1], rtol=1e-13, atol=1e-13)


def test_sixteen_bits_are_computed_in_float32_and_rounded_once():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        heads, parameters = draw(B, H, T, E, dtype=dtype), learned(E, np.float32)
        wide = mhakit.combine(heads.astype(np.float32), "average", parameters)
        np.testing.assert_array_equal(
            mhakit.combine(heads, "average", parameters), wide.astype(dtype)
        )
        plan = CombinationPlan(1, parameters["weight"], parameters["bias"], 1 / H)
        out = np.empty((B, T, M), dtype)
        cpu.combine_heads(heads, plan, out)
        np.testing.assert_array_equal(out, wide.astype(dtype))


def test_parameters_of_any_float_dtype_are_read_in_the_computation_dtype():
    heads, parameters = draw(B, H, T, E, dtype=np.float32), learned(E, ml_dtypes.bfloat16)
    as_float32 = {name: array.astype(np.float32) for name, array in parameters.items()}
    result = mhakit.combine(heads, "average", parameters)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, mhakit.combine(heads, "average", as_float32))


# ---- memory ----------------------------------------------------------------------------------


def views_of(heads):
    """Return the same numbers as views of all kinds."""
    words_first = np.ascontiguousarray(heads.swapaxes(1, 2)).swapaxes(1, 2)
    sparse = np.zeros((*heads.shape[:3], 2 * E), heads.dtype)
    sparse[..., ::2] = heads
    longer = np.zeros((B, T + 3, H, E), heads.dtype)
    longer[:, 2 : T + 2] = heads.swapaxes(1, 2)
    shifted = np.zeros(heads.nbytes + 1, np.uint8)[1:].view(heads.dtype).reshape(heads.shape)
    shifted[...] = heads
    readonly = heads.copy()
    readonly.flags.writeable = False
    return {
        "contiguous": heads,
        "words first": words_first,
        "a slice of words": longer[:, 2 : T + 2].swapaxes(1, 2),
        "every other number": sparse[..., ::2],
        "backwards": np.ascontiguousarray(heads[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        "mirrored": np.ascontiguousarray(heads[..., ::-1])[..., ::-1],
        "Fortran": np.asfortranarray(heads),
        "unaligned": shifted,
        "read-only": readonly,
    }


@pytest.mark.parametrize("groups", [1, H])
def test_the_result_is_the_same_however_the_heads_lie_in_memory(groups):
    heads = draw(B, H, T, E, dtype=np.float32)
    strategies = [Planned(groups=groups), Planned(groups=groups, head_weights=FACTORS["by word"])]
    for strategy in strategies:
        expected = mhakit.combine(heads, strategy)
        for name, view in views_of(heads).items():
            np.testing.assert_array_equal(mhakit.combine(view, strategy), expected, name)


def test_a_broadcast_head_is_read_by_its_strides():
    one = draw(B, 1, T, 1, dtype=np.float32)
    heads = np.broadcast_to(one, (B, H, T, E))
    result = mhakit.combine(heads, Planned(groups=1, reduce="max"))
    np.testing.assert_array_equal(result, heads[:, 0])


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_no_float64_enters_the_float32_kernel(real):
    # compiled afresh: a kernel from the cache on disk shows no code
    kernel = launch.Compiled(cpu._enter, cpu.WEIGHING[np.dtype(real)], cached=False)
    assert (" double " in kernel.entry.inspect_llvm()) == (real == np.float64)


def test_heads_that_lie_word_by_word_are_concatenated_without_kernel_or_copy(monkeypatch):
    def refuse(*_):
        raise AssertionError("weighed")

    heads = np.ascontiguousarray(draw(B, T, H, E)).swapaxes(1, 2)
    monkeypatch.setattr(cpu, "weigh_groups", refuse)
    mhakit.combine(heads, "concat_project", learned(H * E))
    mhakit.combine(heads[:1, :, 1:4], "concat_project", learned(H * E))
    assert np.shares_memory(cpu._side_by_side(heads), heads)
    assert cpu._side_by_side(heads[:, :, 1:4]) is None  # two batches with a gap between them


@pytest.mark.parametrize("factors", ["a number", "by word", "by element"])
def test_the_bits_of_a_row_do_not_depend_on_what_is_around_it(monkeypatch, factors):
    whole, weights = draw(B, H, 40, 33, dtype=np.float32), draw(B, H, 40, 33, dtype=np.float32)
    weights = {"a number": weights[:1, :1, :1, :1], "by word": weights[..., :1]}.get(
        factors, weights
    )
    for limit, threads in ((0, 2), (0, 1), (float("inf"), 1)):
        monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        result = mhakit.combine(whole, Planned(groups=2, head_weights=weights))
        for rows in (slice(0, 1), slice(7, 8), slice(3, 20), slice(39, 40)):
            part = weights if weights.shape[2] == 1 else weights[1:, :, rows]
            alone = mhakit.combine(whole[1:, :, rows], Planned(groups=2, head_weights=part))
            np.testing.assert_array_equal(alone[0], result[1, rows])
        numba.set_num_threads(before)
        if limit == 0 and threads == 2:
            first = result
        np.testing.assert_array_equal(result, first)


def test_what_the_caller_gives_is_never_written():
    heads, hidden, parameters = draw(B, H, T, E), draw(B, T, M), learned(H * E)
    kept = [array.copy() for array in (heads, hidden, *parameters.values())]
    mhakit.combine(heads, "concat_project", parameters, hidden_states=hidden)
    for array, before in zip((heads, hidden, *parameters.values()), kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("target", ["heads", "hidden_states", "parameters"])
def test_a_combination_that_writes_to_what_it_is_given_is_refused(target):
    class Scribbler(Planned):
        uses_hidden_states = True

        def plan(self, heads, parameters, *, hidden_states, training, rng):
            given = {"heads": heads, "hidden_states": hidden_states, "parameters": parameters["a"]}
            given[target][...] = 0

    strategy = Scribbler(specs={"a": ParameterSpec((3,))})
    with pytest.raises(PluginError, match=r"'planned' must plan without an error, got ValueError"):
        mhakit.combine(draw(B, H, T, E), strategy, {"a": np.ones(3)}, hidden_states=draw(B, T, M))


def test_anything_that_is_an_array_on_the_cpu_is_taken():
    class Wrapped:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    heads, parameters = draw(B, H, T, E), learned(E)
    result = mhakit.combine(
        Wrapped(heads), "average", {name: Wrapped(array) for name, array in parameters.items()}
    )
    np.testing.assert_array_equal(result, mhakit.combine(heads, "average", parameters))


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "error", "told"),
    [
        (
            draw(H, E),
            ShapeError,
            r"heads must be \(B, H, T, E\) or \(H, T, E\), got shape \(6, 7\)",
        ),
        (draw(B, 0, T, E), ShapeError, r"heads must have H and E of at least 1, got H=0 and E=7"),
        (draw(B, H, T, 0), ShapeError, r"heads must have H and E of at least 1, got H=6 and E=0"),
        ([[[1.0]]], DTypeError, r"heads must be an array, got list"),
        (np.ones((B, H, T, E), int), DTypeError, r"heads must be float64.*got int64"),
        (np.ones((B, H, T, E), complex), DTypeError, r"heads must be float64.*got complex128"),
    ],
)
def test_heads_that_are_no_heads_are_refused(heads, error, told):
    with pytest.raises(error, match=told):
        mhakit.combine(heads, "average", learned(E))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"bias": ...}, ParameterError, r"of 'average' must be: weight, bias, got none named 'b"),
        ({"weight": ...}, ParameterError, r"of 'average' must be: weight, bias, got none named 'w"),
        (
            {"wieght": np.ones(1)},
            ParameterError,
            r"parameters of 'average' must be: weight, bias, got 'wieght'; did you mean 'weight'\?",
        ),
        ({"zzz": np.ones(1)}, ParameterError, r"must be: weight, bias, got 'zzz'$"),
        (
            {"weight": np.ones((E + 1, M))},
            ShapeError,
            r"parameters\['weight'\] of 'average' must have shape \(7, 9\) for H=6, E=7 and M=9, "
            r"got shape \(8, 9\)",
        ),
        (
            {"bias": np.ones(M + 1)},
            ShapeError,
            r"parameters\['bias'\] .* \(9,\) .*got shape \(10,\)",
        ),
        ({"weight": np.ones((E, M), int)}, DTypeError, r"parameters\['weight'\] must be float64"),
        ({"bias": [0.0] * M}, DTypeError, r"parameters\['bias'\] must be an array, got list"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(changes, error, told):
    parameters = {**learned(E), **changes}
    parameters = {name: value for name, value in parameters.items() if value is not ...}
    with pytest.raises(error, match=told):
        mhakit.combine(draw(B, H, T, E), "average", parameters)


def test_parameters_that_are_no_mapping_are_refused():
    with pytest.raises(ParameterError, match=r"parameters must be a mapping .* got list"):
        mhakit.combine(draw(B, H, T, E), "average", [1])


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        (draw(T, M), r"hidden_states must be \(B, T, M\) as heads has B, got shape \(5, 9\)"),
        (draw(B, T, M + 1), r"hidden_states must be \(B, T, M\) with B=2, T=5 and M=9, got shape"),
        (draw(B, T + 1, M), r"hidden_states must be \(B, T, M\) with B=2, T=5 and M=9, got shape"),
    ],
)
def test_hidden_states_that_do_not_fit_are_refused(hidden, told):
    with pytest.raises(ShapeError, match=told):
        mhakit.combine(draw(B, H, T, E), "average", learned(E), hidden_states=hidden)


def test_hidden_states_with_a_batch_are_refused_where_heads_have_none():
    with pytest.raises(ShapeError, match=r"must be \(T, M\) as heads has no B"):
        mhakit.combine(draw(H, T, E), "average", learned(E), hidden_states=draw(1, T, M))


def test_hidden_states_are_asked_for_where_they_are_read():
    class Reader(Planned):
        uses_hidden_states = True

    strategy = Reader(groups=1)
    with pytest.raises(ParameterError, match=r"hidden_states must be given, combination 'planned'"):
        mhakit.combine(draw(B, H, T, E), strategy)
    hidden = draw(B, T, E, dtype=ml_dtypes.bfloat16)
    mhakit.combine(draw(B, H, T, E, dtype=np.float32), strategy, hidden_states=hidden)
    assert strategy.given["hidden_states"].dtype == np.float32
    np.testing.assert_array_equal(strategy.given["hidden_states"], hidden.astype(np.float32))


class Dropping(Planned):
    stochastic = True

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        self.rng = rng
        kept = 1.0 if rng is None else rng.integers(0, 2, (heads.shape[1], 1, 1))
        return CombinationPlan(groups=1, head_weights=kept)


def test_the_same_seed_drops_the_same_heads_and_without_training_none():
    heads, strategy = draw(B, H, T, E), Dropping()
    first = mhakit.combine(heads, strategy, training=True, rng=5)
    again = mhakit.combine(heads, strategy, training=True, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(first, again)
    calm = mhakit.combine(heads, strategy, rng=5)
    assert strategy.rng is None
    np.testing.assert_allclose(calm, heads.sum(axis=1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"training": True}, r"rng must be an int or a Generator, combination 'planned' draws"),
        (
            {"rng": -1},
            r"rng must be None, an int of at least 0 or a numpy.random.Generator, got -1",
        ),
        ({"rng": True}, r"rng must be None, .* got True"),
        ({"rng": 0.5}, r"rng must be None, .* got 0.5"),
        ({"training": "yes"}, r"training must be True or False, got 'yes'"),
        ({"backend": "gpu"}, r"backend must be None or one of .*'cpu'.*got 'gpu'"),
    ],
)
def test_keywords_outside_their_rule_are_refused(keywords, told):
    with pytest.raises(ParameterError, match=told):
        mhakit.combine(draw(B, H, T, E), Dropping(), **keywords)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"groups": 4}, r"groups between 1 and H=6 that divide H, got 4"),
        ({"groups": 0}, r"groups between 1 and H=6 that divide H, got 0"),
        ({"groups": 12}, r"groups between 1 and H=6 that divide H, got 12"),
        ({"groups": 2.0}, r"groups as an int, got 2.0"),
        ({"groups": 1, "reduce": "mean"}, r"reduce 'sum' or 'max', got 'mean'"),
        (
            {"groups": 2, "weight": np.ones((E, M))},
            r"weight \(groups \* E, M\) with groups \* E = 14, got shape \(7, 9\)",
        ),
        ({"groups": 1, "weight": np.ones(E)}, r"weight \(groups \* E, M\) .*got shape \(7,\)"),
        ({"groups": 1, "weight": "w"}, r"weight of floats, got <U1"),
        ({"groups": 1, "weight": np.ones((E, M), complex)}, r"weight of floats, got complex128"),
        (
            {"groups": 1, "weight": np.ones((E, M)), "bias": np.ones(E)},
            r"bias \(M,\) with M=9, got shape \(7,\)",
        ),
        ({"groups": 1, "bias": np.ones(M)}, r"bias \(M,\) with M=7, got shape \(9,\)"),
        (
            {"groups": 1, "head_weights": np.ones(H)},
            r"head_weights broadcastable to \(B, H, T, E\) = \(2, 6, 5, 7\), got shape \(6,\)",
        ),
        ({"groups": 1, "head_weights": np.ones((1,) * 5)}, r"head_weights broadcastable to"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_with_the_rule(plan, told):
    with pytest.raises(PluginError, match=r"combination 'planned' must plan " + told):
        mhakit.combine(draw(B, H, T, E), Planned(**plan))


def test_a_plan_that_is_none_is_refused_by_its_type():
    with pytest.raises(PluginError, match=r"must plan a CombinationPlan or None, got dict"):
        mhakit.combine(draw(B, H, T, E), Planned({"groups": 1}))


def test_a_plan_that_leads_to_another_width_is_refused():
    with pytest.raises(PluginError, match=r"must plan a projection to M=9, got 7 columns"):
        mhakit.combine(draw(B, H, T, E), Planned(groups=1), hidden_states=draw(B, T, M))


@pytest.mark.parametrize("specs", [[1], {"a": (3,)}])
def test_parameters_that_are_no_specs_are_refused(specs):
    with pytest.raises(PluginError, match=r"'planned' must give parameters as a dict of names to"):
        mhakit.combine(draw(B, H, T, E), Planned(specs=specs))


def test_a_combination_may_refuse_the_sizes():
    class Even(Planned):
        def validate(self, shape):
            if shape.num_heads % 2:
                raise ParameterError(f"num_heads must be even, got {shape.num_heads}")

    with pytest.raises(ParameterError, match="num_heads must be even, got 3"):
        mhakit.combine(draw(B, 3, T, E), Even(groups=1))


# ---- strategies that no plan says ------------------------------------------------------------


class Forward(HeadCombination):
    name = "forward"
    reference = "a test"

    def __init__(self, result=None):
        self.result = result

    def forward(self, heads, parameters, *, hidden_states, training, rng):
        return (np.sin(heads).mean(axis=1), None) if self.result is None else self.result


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_strategy_without_a_plan_runs_its_forward(backend, dtype):
    heads = draw(B, H, T, E, dtype=dtype)
    result = mhakit.combine(heads, Forward(), backend=backend)
    assert_within_budget(result, lambda z: np.sin(z).mean(axis=1), heads)
    assert result.dtype == dtype


def test_the_result_of_forward_is_memory_of_its_own():
    kept = draw(B, T, E)
    result = mhakit.combine(draw(B, H, T, E), Forward((kept, None)))
    np.testing.assert_array_equal(result, kept)
    assert not np.shares_memory(result, kept)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (draw(B, T, E), r"must return \(output, residuals\) from forward, got ndarray"),
        (
            (draw(B, T + 1, E), None),
            r"must return floats \(B, T, M\) with B=2, T=5 from forward, got float64 of shape "
            r"\(2, 6, 7\)",
        ),
        ((np.ones((B, T, E), int), None), r"must return floats \(B, T, M\).*got int64 of shape"),
    ],
)
def test_a_forward_that_returns_something_else_is_refused(result, told):
    with pytest.raises(PluginError, match=r"combination 'forward' " + told):
        mhakit.combine(draw(B, H, T, E), Forward(result))


def test_a_forward_of_another_width_than_the_layer_is_refused():
    with pytest.raises(PluginError, match=r"with B=2, T=5 and M=9 from forward"):
        mhakit.combine(draw(B, H, T, E), Forward(), hidden_states=draw(B, T, M))


def test_a_forward_that_fails_is_named_with_its_cause():
    class Failing(Forward):
        def forward(self, *_, **__):
            raise KeyError("gate")

    with pytest.raises(
        PluginError, match=r"'forward' must run forward without an error, got KeyError: 'gate'"
    ):
        mhakit.combine(draw(B, H, T, E), Failing())


def test_a_strategy_with_neither_plan_nor_forward_is_refused():
    with pytest.raises(PluginError, match=r"must return a plan or define forward, got neither"):
        mhakit.combine(draw(B, H, T, E), Planned())


def test_an_error_message_of_the_package_passes_as_it_is():
    class Careful(Forward):
        def forward(self, *_, **__):
            raise ParameterError("top_k must be at most H=6, got 7")

    with pytest.raises(ParameterError, match=re.escape("top_k must be at most H=6, got 7")):
        mhakit.combine(draw(B, H, T, E), Careful())
