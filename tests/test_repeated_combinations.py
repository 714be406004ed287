"""Combinations asked for like before are answered without the same checks, on other arrays."""

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit.api import asking_again
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec

B, H, T, E, M = 2, 4, 5, 8, 6


def drawn(dtype=np.float32, seed=None):
    """Return heads and what concat_project learns."""
    rng = np.random.default_rng(seed)
    shapes = {"heads": (B, H, T, E), "weight": (H * E, M), "bias": (M,)}
    heads, weight, bias = (rng.standard_normal(shape).astype(dtype) for shape in shapes.values())
    return heads, {"weight": weight, "bias": bias}


class Scaled(HeadCombination):
    """The sum of the heads, scaled by one number and by another."""

    name, reference = "scaled", "a test"
    given: tuple[str, ...] = ()

    def parameters(self, shape):
        return {"first": ParameterSpec((), "ones"), "second": ParameterSpec((), "ones")}

    def plan(self, heads, parameters, **_):
        type(self).given = tuple(parameters)
        factor = parameters["first"] + 2 * parameters["second"]
        return CombinationPlan(groups=1, head_weights=factor)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_repetition_is_of_its_own_arrays(dtype):
    asked_anew = type(mhakit.registry.resolve("concat_project"))()
    for _ in range(4):
        heads, learned = drawn(dtype)
        expected = mhakit.combine(heads, asked_anew, learned)
        np.testing.assert_array_equal(mhakit.combine(heads, "concat_project", learned), expected)
        np.testing.assert_array_equal(
            mhakit.combine(heads, type(asked_anew), dict(reversed(learned.items()))), expected
        )


BROKEN = {
    "heads without H": (lambda z, p: (z[0, 0], p), mhakit.ShapeError, "heads must be"),
    "heads of ints": (lambda z, p: (z.astype(int), p), mhakit.DTypeError, "heads must be float64"),
    "masked heads": (
        lambda z, p: (np.ma.masked_array(z), p), mhakit.DTypeError, "must not be a masked array",
    ),
    "another E": (lambda z, p: (z[..., 1:], p), mhakit.ShapeError, "must have shape"),
    "another H": (lambda z, p: (z[:, 1:], p), mhakit.ShapeError, "must have shape"),
    "another weight": (
        lambda z, p: (z, {**p, "weight": p["weight"][1:]}), mhakit.ShapeError, "must have shape",
    ),
    "another bias": (
        lambda z, p: (z, {**p, "bias": p["bias"][1:]}), mhakit.ShapeError, "must have shape",
    ),
    "a weight of ints": (
        lambda z, p: (z, {**p, "weight": p["weight"].astype(int)}), mhakit.DTypeError, "float64",
    ),
    "a bias that is a list": (
        lambda z, p: (z, {**p, "bias": [0.0] * M}), mhakit.DTypeError, "must be an array",
    ),
    "no bias": (
        lambda z, p: (z, {"weight": p["weight"]}), mhakit.ParameterError, "none named 'bias'",
    ),
    "another name": (
        lambda z, p: (z, {"wieght": p["weight"], "bias": p["bias"]}),
        mhakit.ParameterError,
        "did you mean 'weight'",
    ),
    "one more": (
        lambda z, p: (z, {**p, "gain": p["bias"]}), mhakit.ParameterError, "got 'gain'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_unlike_it_is_checked(case):
    change, error, message = BROKEN[case]
    for _ in range(3):
        mhakit.combine(*drawn_call())
    heads, learned = change(*drawn())
    for _ in range(2):
        with pytest.raises(error, match=message):
            mhakit.combine(heads, "concat_project", learned)


def drawn_call():
    """Return the arguments of a call that is right."""
    heads, learned = drawn()
    return heads, "concat_project", learned


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"hidden_states": np.ones((B, T, M + 1), np.float32)}, mhakit.ShapeError, "hidden_states"),
        ({"hidden_states": np.ones((B, T, M), int)}, mhakit.DTypeError, "hidden_states"),
        ({"training": "yes"}, mhakit.ParameterError, "training must be True or False"),
        ({"rng": -1}, mhakit.ParameterError, "rng must be"),
        ({"backend": "fast"}, mhakit.ParameterError, "backend must be"),
    ],
)
def test_every_keyword_is_checked(keywords, error, message):
    right = {"hidden_states": np.ones((B, T, M), np.float32)}
    for _ in range(3):
        mhakit.combine(*drawn_call())
        mhakit.combine(*drawn_call(), **right)
    with pytest.raises(error, match=message):
        mhakit.combine(*drawn_call(), **{**right, **keywords})


def test_hidden_states_are_read_anew():
    rng = np.random.default_rng()
    heads, hidden = rng.standard_normal((B, H, T, E)), rng.standard_normal((3, B, T, M))
    shape = mhakit.plugin_api.HeadShape(H, E, M)
    specs = mhakit.registry.resolve("gated_heads").parameters(shape)
    learned = {name: rng.standard_normal(spec.shape) for name, spec in specs.items()}
    outputs = [mhakit.combine(heads, "gated_heads", learned, hidden_states=x) for x in hidden]
    for x, output in zip(hidden, outputs, strict=True):
        asked_anew = mhakit.registry.resolve("gated_heads")
        expected = mhakit.combine(heads, asked_anew, learned, hidden_states=x)
        np.testing.assert_array_equal(output, expected)
    assert not np.array_equal(outputs[0], outputs[1])


def test_a_combination_sees_its_parameters_in_its_own_order():
    heads = np.ones((1, 2, 3, 4))
    for first, second in ((1.0, 10.0), (2.0, 20.0), (3.0, 30.0)):
        learned = {"second": np.array(second), "first": np.array(first)}
        output = mhakit.combine(heads, Scaled, learned)
        np.testing.assert_array_equal(output, 2 * (first + 2 * second))
        assert Scaled.given == ("first", "second")


def test_what_is_planned_is_judged_every_time():
    class Worsens(HeadCombination):
        name, reference, groups, columns = "worsens", "a test", 1, slice(None)

        def parameters(self, shape):
            return {"weight": ParameterSpec((shape.head_width, shape.model_width), "ones")}

        def plan(self, heads, parameters, **_):
            weight = parameters["weight"][:, type(self).columns]
            return CombinationPlan(groups=type(self).groups, weight=weight)

    heads, learned = np.ones((1, 2, 3, 4)), {"weight": np.ones((4, 5))}
    for _ in range(3):
        mhakit.combine(heads, Worsens, learned)
    Worsens.groups = 3
    with pytest.raises(mhakit.PluginError, match="groups between 1 and H=2"):
        mhakit.combine(heads, Worsens, learned)
    Worsens.groups, Worsens.columns = 1, slice(4)
    with pytest.raises(mhakit.PluginError, match="a projection to M=5, got 4 columns"):
        mhakit.combine(heads, Worsens, learned)


def test_every_combination_is_asked_itself():
    class Refuses(Scaled):
        name = "refuses"

        def validate(self, shape):
            raise mhakit.ShapeError(f"refuses every shape, got {shape.num_heads} heads")

    heads, learned = np.ones((1, 2, 3, 4)), {"first": np.ones(()), "second": np.ones(())}
    for _ in range(3):
        mhakit.combine(heads, Scaled, learned)
    with pytest.raises(mhakit.ShapeError, match="refuses every shape, got 2 heads"):
        mhakit.combine(heads, Refuses, learned)


def test_heads_without_a_batch_repeat_as_well():
    heads, learned = drawn()
    expected = mhakit.combine(heads[:1], "concat_project", learned)[0]
    for _ in range(3):
        np.testing.assert_array_equal(mhakit.combine(heads[0], "concat_project", learned), expected)


def test_an_object_is_asked_every_time_for_it_may_have_changed():
    projecting = mhakit.registry.resolve("concat_project")
    heads, learned = drawn()
    for _ in range(3):
        mhakit.combine(heads, projecting, learned)
    projecting.bias = False
    with pytest.raises(mhakit.ParameterError, match="must be: weight, got 'bias'"):
        mhakit.combine(heads, projecting, learned)


def test_nothing_of_a_callers_arrays_is_kept():
    heads, learned = drawn()
    gone = [weakref.ref(array) for array in (heads, *learned.values())]
    gone += [weakref.ref(mhakit.combine(heads, "concat_project", learned)) for _ in range(3)]
    del heads, learned
    gc.collect()
    assert not [one for one in gone if one() is not None]


def test_so_many_kinds_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr(asking_again, "MOST", 3)
    monkeypatch.setattr(asking_again, "_known", {})
    for words in (1, 2, 1, 3, 4, 5, 1, 1):
        heads = np.ones((1, 2, words, 4))
        learned = {"weight": np.eye(8), "bias": np.zeros(8)}
        np.testing.assert_array_equal(mhakit.combine(heads, "concat_project", learned), 1)
        assert 1 <= len(asking_again._known) <= 3
