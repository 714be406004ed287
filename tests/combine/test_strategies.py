"""The strategies that come with the package, against their formulas."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mhakit
from material.arrays import draw
from material.combinations import B, E, H, M, T, assert_within_budget, learned
from mhakit.backends.cpu import combination as cpu
from mhakit.plugin_api import CombinationPlan, HeadShape


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
