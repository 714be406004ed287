"""The layer: what it projects, attends and combines, and how its parameters are read and set."""

from __future__ import annotations

import copy
import pickle
import runpy
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit.errors import DTypeError, ParameterError, PluginError, ShapeError
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec

DATA = Path(__file__).parent / "data"
B, T, S, M = 2, 5, 7, 12
H, G, D, E = 6, 2, 3, 4


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def owner(array):
    """Return the array that owns the memory of a view."""
    return array if array.base is None else owner(array.base)


def grouped(**keywords):
    """Return a layer no two sizes of which are equal, with biases that are not 0."""
    given = {"num_kv_heads": G, "head_width": D, "value_width": E, "dtype": np.float64, "rng": 0}
    layer = mhakit.MultiHeadAttention(M, H, **{**given, **keywords})
    biases = {name: view for name, view in layer.parameters().items() if name.endswith("_bias")}
    layer.set_parameters({name: draw(*view.shape, seed=1) for name, view in biases.items()})
    return layer


# ---- project, attend, combine ----------------------------------------------------------------


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_every_head_projects_with_its_own_weights(cross, bias):
    layer, x, source = grouped(bias=bias), draw(B, T, M), draw(B, S, M, seed=3)
    parts = layer.project(x, source) if cross else layer.project(x)
    of = (x, source, source) if cross else (x, x, x)
    for name, part, words in zip(("query", "key", "value"), parts, of, strict=True):
        weights, biases = getattr(layer, f"{name}_weight"), getattr(layer, f"{name}_bias")
        assert part.shape[1] == weights.shape[0]
        for h in range(weights.shape[0]):
            expected = words @ weights[h] + (biases[h] if bias else 0)
            np.testing.assert_allclose(part[:, h], expected, rtol=1e-13, atol=1e-13)


def test_self_attention_projects_with_one_product_and_copies_nothing():
    query, key, value = grouped().project(draw(B, T, M))
    assert owner(query).size == B * T * (H * D + G * D + G * E)
    assert owner(query) is owner(key) is owner(value)


def test_heads_are_attention_of_the_projections():
    layer, x, source = grouped(), draw(B, T, M), draw(B, S, M, seed=3)
    keywords = {"mask": draw(T, S, seed=4) > 0, "softcap": 5.0, "scale": 0.3, "sinks": draw(H)}
    z = layer.heads(x, source, **keywords)
    expected = mhakit.attention(*layer.project(x, source), **keywords)
    np.testing.assert_array_equal(z, expected)
    assert z.shape == (B, H, T, E)
    assert z.swapaxes(1, 2).flags.c_contiguous


def test_calling_it_combines_the_heads(backend):
    layer, x = grouped(), draw(B, T, M)
    output = layer(x, causal=True, backend=backend)
    z = layer.heads(x, causal=True, backend=backend)
    parameters = layer.parameters()
    expected = z.swapaxes(1, 2).reshape(B, T, H * E) @ parameters["combine.weight"]
    np.testing.assert_allclose(
        output, expected + parameters["combine.bias"], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(layer.combine(z, backend=backend), output)


def test_the_weights_are_returned_where_asked_for():
    layer, x, source = grouped(), draw(B, T, M), draw(B, S, M, seed=3)
    output, weights = layer(x, source, key_lengths=[3, 7], return_weights=True)
    query, key, _ = layer.project(x, source)
    np.testing.assert_allclose(output, layer(x, source, key_lengths=[3, 7]), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(weights, mhakit.attention_weights(query, key, key_lengths=[3, 7]))


def test_the_batch_axis_may_be_left_out():
    layer, x, source = grouped(), draw(B, T, M), draw(B, S, M, seed=3)
    output, weights = layer(x, source, return_weights=True)
    alone, alone_weights = layer(x[1], source[1], return_weights=True)
    np.testing.assert_allclose(alone, output[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(alone_weights, weights[1], rtol=1e-12, atol=1e-12)
    assert [part.shape for part in layer.project(x[1], source[1])] == [
        (H, T, D),
        (G, S, D),
        (G, S, E),
    ]
    assert layer.heads(x[1], source[1]).shape == (H, T, E)


def test_an_empty_sentence_gives_an_empty_result(backend, dtype):
    layer = mhakit.MultiHeadAttention(M, 3, dtype=dtype, rng=0)
    output, weights = layer(np.empty((B, 0, M), dtype), backend=backend, return_weights=True)
    assert (output.shape, weights.shape) == ((B, 0, M), (B, 3, 0, 0))
    assert layer(np.empty((0, T, M), dtype), backend=backend).shape == (0, T, M)


def test_words_that_see_no_source_get_the_combination_of_nothing(backend):
    layer = grouped()
    output = layer(draw(B, T, M), np.empty((B, 0, M)), backend=backend)
    np.testing.assert_array_equal(
        output, np.broadcast_to(layer.parameters()["combine.bias"], (B, T, M))
    )


def test_sixteen_bit_projections_are_computed_in_float32_and_rounded_once():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        layer = mhakit.MultiHeadAttention(M, 3, dtype=dtype, rng=0)
        layer.query_bias = draw(3, 4)
        x = draw(B, T, M, dtype=dtype)
        query = layer.project(x)[0]
        weight = np.ascontiguousarray(layer.query_weight.swapaxes(0, 1)).reshape(M, M)
        wide = x.astype("f") @ weight.astype("f") + layer.query_bias.astype("f").reshape(M)
        expected = wide.reshape(B, T, 3, 4).swapaxes(1, 2)
        assert query.dtype == dtype
        step = float(ml_dtypes.finfo(dtype).eps)  # a tie may fall to either side
        np.testing.assert_allclose(query.astype("f"), expected, rtol=step / 2 * 1.01, atol=1e-6)
        assert layer(x).dtype == dtype


def test_a_transposed_input_gives_the_same():
    layer, x = grouped(), draw(T, B, M)
    np.testing.assert_array_equal(
        layer(x.swapaxes(0, 1)), layer(np.ascontiguousarray(x.swapaxes(0, 1)))
    )


class Gate(HeadCombination):
    """Reads the layer's input and draws when training."""

    name = "gate"
    reference = "a test"
    uses_hidden_states = True
    stochastic = True

    def parameters(self, shape):
        return {"gate": ParameterSpec((shape.model_width, shape.num_heads), "xavier_uniform")}

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        gate = (hidden_states @ parameters["gate"]).swapaxes(1, 2)[..., None]
        return CombinationPlan(3, head_weights=gate * (1 if rng is None else rng.random()))


def test_a_combination_gets_the_layers_input_and_its_randomness():
    layer, x = grouped(combine=Gate), draw(B, T, M)
    gate = (x @ layer.parameters()["combine.gate"]).swapaxes(1, 2)[..., None]
    z = (layer.heads(x) * gate).reshape(B, 3, H // 3, T, E).sum(axis=2)
    expected = z.swapaxes(1, 2).reshape(B, T, M)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer(x[0]), expected[0], rtol=1e-12, atol=1e-12)
    trained = layer(x, training=True, rng=3)
    np.testing.assert_allclose(trained, expected * np.random.default_rng(3).random(), rtol=1e-12)
    with pytest.raises(ParameterError, match="rng must be an int or a Generator"):
        layer(x, training=True)
    with pytest.raises(ParameterError, match="hidden_states must be given"):
        layer.combine(layer.heads(x))


# ---- against torch ---------------------------------------------------------------------------

torch_layers = SimpleNamespace(**runpy.run_path(str(DATA / "make_torch_layers.py")))
LIVE = ["live"] if find_spec("torch") else []


def torch_case(case, origin):
    """Return what torch computed: as recorded, and where torch is installed also as it does now."""
    if origin == "live":
        return torch_layers.compute(case)
    with np.load(DATA / "torch_layers.npz") as recorded:
        prefix = f"{case}/"
        return {n.removeprefix(prefix): recorded[n] for n in recorded if n.startswith(prefix)}


@pytest.mark.parametrize("origin", ["recorded", *LIVE])
@pytest.mark.parametrize("case", torch_layers.CASES)
def test_a_torch_layer_gives_what_torch_gives(case, origin, backend):
    arrays = torch_case(case, origin)
    state = {n.removeprefix("state/"): a for n, a in arrays.items() if n.startswith("state/")}
    options = torch_layers.CASES[case]
    layer = mhakit.MultiHeadAttention.from_torch_state_dict(state, torch_layers.H)
    output, weights = layer(
        arrays["x"],
        arrays["source"] if options.get("cross") else None,
        causal=options.get("causal"),
        key_lengths=options.get("key_lengths"),
        return_weights=True,
        backend=backend,
    )
    np.testing.assert_allclose(output, arrays["output"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(weights, arrays["weights"], rtol=0, atol=5e-7)


def torch_state(**changes):
    state = {
        "in_proj_weight": draw(3 * M, M),
        "in_proj_bias": draw(3 * M),
        "out_proj.weight": draw(M, M),
        "out_proj.bias": draw(M),
    }
    return {name: value for name, value in (state | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"bias_k": draw(1, 1, M)}, ParameterError, r"got 'bias_k': a learned extra source"),
        ({"bias_v": draw(1, 1, M)}, ParameterError, r"got 'bias_v': a learned extra source"),
        ({"q_proj_weight": draw(M, M)}, ParameterError, r"got 'q_proj_weight': projections of o"),
        ({"k_proj_weight": draw(M, 5)}, ParameterError, r"got 'k_proj_weight': projections of o"),
        ({"v_proj_weight": draw(M, 5)}, ParameterError, r"got 'v_proj_weight': projections of o"),
        (
            {"layer.weight": draw(1)},
            ParameterError,
            r"state must hold .* alone, got 'layer.weight'",
        ),
        ({"in_proj_weight": None}, ParameterError, r"must hold .*got none named 'in_proj_weight'"),
        (
            {"out_proj.weight": None},
            ParameterError,
            r"must hold .*got none named 'out_proj.weight'",
        ),
        ({"in_proj_bias": None}, ParameterError, r"must hold .*got none named 'in_proj_bias'"),
        ({"out_proj.bias": None}, ParameterError, r"must hold .*got none named 'out_proj.bias'"),
        (
            {"in_proj_weight": draw(2 * M, M)},
            ShapeError,
            r"in_proj_weight must have shape \(36, 12\) as out_proj.weight has M=12 rows, got",
        ),
        (
            {"out_proj.weight": draw(M, 5)},
            ShapeError,
            r"out_proj.weight must have shape \(12, 12\)",
        ),
        ({"out_proj.weight": np.array(1.0)}, ShapeError, r"must have shape \(0, 0\)"),
        ({"in_proj_bias": draw(M)}, ShapeError, r"in_proj_bias must have shape \(36,\)"),
        ({"out_proj.bias": draw(M + 1)}, ShapeError, r"out_proj.bias must have shape \(12,\)"),
        ({"out_proj.bias": [0.0] * M}, DTypeError, r"out_proj.bias must be an array, got list"),
    ],
)
def test_a_torch_state_that_cannot_be_carried_over_is_refused_by_name(changes, error, told):
    with pytest.raises(error, match=told):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(**changes), 3)


def test_a_torch_state_needs_a_number_of_heads_that_divides_it():
    with pytest.raises(ParameterError, match=r"num_heads must divide M=12 .*got 5"):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(), 5)
    with pytest.raises(ParameterError, match=r"num_heads must be an int of at least 1, got 0"):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(), 0)


def test_a_torch_state_must_be_a_mapping():
    with pytest.raises(ParameterError, match=r"state must be a mapping .*got list"):
        mhakit.MultiHeadAttention.from_torch_state_dict([], 3)


def test_a_torch_state_is_not_read_into_a_combination_of_another_shape():
    with pytest.raises(
        ParameterError,
        match=r"combine must have a parameter 'weight' of shape \(12, 12\) .*got 'average'.*"
        r"read it as 'concat_project' and change it by combine_with",
    ):
        mhakit.MultiHeadAttention.from_torch_state_dict(torch_state(), 3, combine="average")


# ---- parameters ------------------------------------------------------------------------------


def test_parameters_are_read_only_views_of_one_matrix():
    layer = grouped()
    parameters = layer.parameters()
    assert {name: view.shape for name, view in parameters.items()} == {
        "query_weight": (H, M, D),
        "key_weight": (G, M, D),
        "value_weight": (G, M, E),
        "query_bias": (H, D),
        "key_bias": (G, D),
        "value_bias": (G, E),
        "combine.weight": (H * E, M),
        "combine.bias": (M,),
    }
    for view in parameters.values():
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    assert len({id(owner(parameters[f"{name}_weight"])) for name in ("query", "key", "value")}) == 1
    for name, view in parameters.items():
        if "." not in name:
            np.testing.assert_array_equal(getattr(layer, name), view)
    assert not np.shares_memory(layer.query_weight, layer.key_weight)


def test_setting_a_parameter_changes_it_alone_and_copies_the_array():
    layer = grouped()
    before = {name: view.copy() for name, view in layer.parameters().items()}
    value = draw(G, M, D, seed=9, dtype=np.float32)
    layer.key_weight = value
    kept = value.copy()
    value[...] = 0
    for name, view in layer.parameters().items():
        np.testing.assert_array_equal(view, kept if name == "key_weight" else before[name])


def test_the_combinations_parameters_are_set_by_their_names():
    layer = grouped()
    layer.set_parameters({"combine.weight": np.zeros((H * E, M)), "combine.bias": np.arange(12.0)})
    np.testing.assert_array_equal(layer(draw(B, T, M)), np.broadcast_to(np.arange(12.0), (B, T, M)))


@pytest.mark.parametrize(
    ("name", "value", "error", "told"),
    [
        (
            "qwery_weight",
            draw(1),
            ParameterError,
            r"of this layer must be: query_weight, .*got 'qw",
        ),
        ("weight", draw(H * E, M), ParameterError, r"must be: .*combine.weight.*, got 'weight'"),
        ("key_weight", draw(H, M, D), ShapeError, r"key_weight must have shape \(2, 12, 3\)"),
        ("combine.bias", draw(3), ShapeError, r"combine.bias must have shape \(12,\).*\(3,\)"),
        ("key_bias", np.ones((G, D), int), DTypeError, r"key_bias must be float64.*got int64"),
        ("key_bias", [[0.0]], DTypeError, r"key_bias must be an array, got list"),
    ],
)
def test_parameters_are_set_all_or_none(name, value, error, told):
    layer = grouped()
    before = {key: view.copy() for key, view in layer.parameters().items()}
    with pytest.raises(error, match=told):
        layer.set_parameters({"query_weight": draw(H, M, D, seed=8), name: value})
    for key, view in layer.parameters().items():
        np.testing.assert_array_equal(view, before[key])


def test_parameters_that_are_no_mapping_are_refused():
    with pytest.raises(ParameterError, match=r"parameters must be a mapping .*got list"):
        grouped().set_parameters([])


def test_a_layer_without_bias_has_none_to_read_or_set():
    layer = mhakit.MultiHeadAttention(M, H, bias=False, rng=0)
    assert layer.query_bias is None
    with pytest.raises(ParameterError, match=r"parameters of this layer must be: .*'query_bias'"):
        layer.query_bias = draw(H, 2)


def test_initial_values_are_spread_as_torch_spreads_them():
    width = 48
    layer = mhakit.MultiHeadAttention(width, 4, rng=0)
    for name in ("query_weight", "key_weight", "value_weight"):
        values = getattr(layer, name)
        bound = np.sqrt(6 / (4 * width))
        assert 0.99 * bound < np.abs(values).max() <= bound
        assert abs(values.std() - bound / np.sqrt(3)) < 0.03 * bound
    out = layer.parameters()["combine.weight"]
    assert 0.99 / np.sqrt(width) < np.abs(out).max() <= 1 / np.sqrt(width)
    for name in ("query_bias", "key_bias", "value_bias", "combine.bias"):
        assert not layer.parameters()[name].any()


def test_other_widths_are_spread_by_the_matrix_they_stand_in():
    layer = mhakit.MultiHeadAttention(48, 4, num_kv_heads=2, head_width=24, value_width=8, rng=0)
    bound = np.sqrt(6 / (48 + 4 * 24 + 2 * 24 + 2 * 8))
    assert 0.99 * bound < np.abs(layer.query_weight).max() <= bound


def test_all_parameters_are_of_the_layers_dtype(dtype):
    layer = mhakit.MultiHeadAttention(M, H, dtype=dtype, rng=0)
    layer.combine_with("average", parameters={"combine.weight": draw(2, M)}, rng=0)
    layer.query_weight = draw(H, M, 2)
    assert {view.dtype for view in layer.parameters().values()} == {dtype}


def test_the_same_seed_gives_the_same_layer():
    first, again, other = (mhakit.MultiHeadAttention(M, H, rng=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.query_weight, again.query_weight)
    assert not np.array_equal(first.query_weight, other.query_weight)
    generator = mhakit.MultiHeadAttention(M, H, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(
        first.parameters()["combine.weight"], generator.parameters()["combine.weight"]
    )


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("zeros", np.zeros((3, 3))),
        ("ones", np.ones((3, 3))),
        ("identity", np.eye(3)),
        (lambda rng, shape: np.full(shape, 2.0), np.full((3, 3), 2.0)),
    ],
)
def test_a_combination_says_how_its_parameters_begin(init, expected):
    class Begun(Gate):
        def parameters(self, shape):
            return {**super().parameters(shape), "extra": ParameterSpec((3, 3), init)}

    layer = mhakit.MultiHeadAttention(M, H, combine=Begun, rng=0)
    np.testing.assert_array_equal(layer.parameters()["combine.extra"], expected)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            ParameterSpec((3,), "gaussian"),
            r"'extra' of shape \(3,\) by a function .*got 'gaussian'",
        ),
        (ParameterSpec((3,), "identity"), r"'extra' of shape \(3,\) .*got 'identity'"),
        (ParameterSpec((), "uniform_fan_in"), r"'extra' of shape \(\) .*got 'uniform_fan_in'"),
        (ParameterSpec((3,), lambda rng, shape: np.ones(4)), r"'extra' with shape \(3,\), got .*4"),
        (ParameterSpec((3,), lambda rng, shape: 1 / 0), r"'extra' without an error, got ZeroDiv"),
    ],
)
def test_a_beginning_that_makes_no_sense_is_refused(spec, told):
    class Begun(Gate):
        def parameters(self, shape):
            return {"extra": spec}

    with pytest.raises(PluginError, match=r"combination 'gate' must initialise " + told):
        mhakit.MultiHeadAttention(M, H, combine=Begun, rng=0)


# ---- another combination under the same heads ------------------------------------------------


def test_another_combination_keeps_the_heads_and_what_fits():
    layer, x = grouped(), draw(B, T, M)
    layer.set_parameters({"combine.bias": draw(M, seed=6)})
    heads, bias = layer.heads(x), layer.parameters()["combine.bias"]
    assert layer.combine_with("average", rng=0) == ("combine.weight",)
    np.testing.assert_array_equal(layer.heads(x), heads)
    np.testing.assert_array_equal(layer.parameters()["combine.bias"], bias)
    weight = layer.parameters()["combine.weight"]
    np.testing.assert_allclose(layer(x), heads.mean(axis=1) @ weight + bias, rtol=1e-12, atol=1e-12)
    assert layer.combination.name == "average"


def test_parameters_can_come_with_the_combination():
    layer, weight = grouped(), draw(E, M, seed=5)
    assert layer.combine_with("average", parameters={"combine.weight": weight}) == ()
    np.testing.assert_array_equal(layer.parameters()["combine.weight"], weight)


@pytest.mark.parametrize(
    ("combination", "parameters", "error", "told"),
    [
        ("averag", None, PluginError, r"did you mean 'average'"),
        (
            "average",
            {"combine.weight": draw(E + 1, M)},
            ShapeError,
            r"parameters\['weight'\] of 'average'",
        ),
        (
            "average",
            {"combine.w": draw(E, M)},
            ParameterError,
            r"of 'average' must be: weight, bias, got",
        ),
        (
            "average",
            {"weight": draw(E, M)},
            ParameterError,
            r"of this layer must be: combine.weight, combine.bias, got 'weight'",
        ),
        ("average", [1], ParameterError, r"parameters must be a mapping .*got list"),
    ],
)
def test_a_combination_that_fails_leaves_the_layer_as_it_was(combination, parameters, error, told):
    layer, x = grouped(), draw(B, T, M)
    before = layer(x)
    with pytest.raises(error, match=told):
        layer.combine_with(combination, parameters=parameters, rng=0)
    np.testing.assert_array_equal(layer(x), before)
    assert layer.combination.name == "concat_project"


def test_sizes_that_a_combination_cannot_take_leave_the_layer_as_it_was():
    layer, x = mhakit.MultiHeadAttention(9, num_heads=3, dtype=np.float64, rng=0), draw(B, T, 9)
    before = layer(x)
    with pytest.raises(ParameterError, match="H=3"):
        layer.combine_with("differential", rng=0)
    np.testing.assert_array_equal(layer(x), before)


@pytest.mark.parametrize("name", ["gated_heads", "mixture_of_heads", "attention_over_heads"])
def test_a_combination_that_reads_the_input_swaps_under_the_same_heads(name):
    layer, x = grouped(), draw(B, T, M)
    heads = layer.heads(x)
    assert "combine.weight" not in layer.combine_with("gated_heads", rng=0)  # kept
    layer.combine_with(name, rng=0)
    np.testing.assert_array_equal(layer.heads(x), heads)
    np.testing.assert_array_equal(layer(x), layer.combine(heads, x))


def test_a_layer_takes_a_class_or_an_object_in_place_of_a_name():
    for combination in (Gate, Gate()):
        assert (
            mhakit.MultiHeadAttention(M, H, combine=combination, rng=0).combination.name == "gate"
        )


# ---- copies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_a_copy_computes_the_same_and_goes_its_own_way(duplicate):
    layer, x = grouped(), draw(B, T, M)
    twin, before = duplicate(layer), layer(x)
    np.testing.assert_array_equal(twin(x), before)
    assert repr(twin) == repr(layer)
    twin.query_weight = np.zeros((H, M, D))
    twin.set_parameters({"combine.weight": np.zeros((H * E, M))})
    twin.combine_with("average", rng=0)
    np.testing.assert_array_equal(layer(x), before)
    with pytest.raises(ValueError, match="read-only"):
        twin.query_weight[...] = 0


def test_a_layer_says_what_it_is():
    assert repr(grouped()) == (
        "MultiHeadAttention(model_width=12, num_heads=6, num_kv_heads=2, head_width=3, "
        "value_width=4, bias=True, combine='concat_project', dtype=float64)"
    )


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"model_width": 0}, ParameterError, r"model_width must be an int of at least 1, got 0"),
        ({"model_width": 12.0}, ParameterError, r"model_width must be an int .*got 12.0"),
        ({"num_heads": True}, ParameterError, r"num_heads must be an int of at least 1, got True"),
        (
            {"num_heads": 5},
            ParameterError,
            r"model_width must be a multiple of num_heads=5 .*got 12",
        ),
        ({"num_kv_heads": 4}, ParameterError, r"num_kv_heads must divide num_heads=6, got 4"),
        ({"head_width": -1}, ParameterError, r"head_width must be an int of at least 1, got -1"),
        ({"value_width": "4"}, ParameterError, r"value_width must be an int .*got '4'"),
        ({"bias": None}, ParameterError, r"bias must be True or False, got None"),
        ({"dtype": int}, DTypeError, r"dtype must be float64, float32, float16 .*got .*int"),
        ({"dtype": None}, DTypeError, r"dtype must be float64, .*got None"),
        ({"dtype": "flaot32"}, DTypeError, r"dtype must be float64, .*got 'flaot32'"),
        ({"dtype": ">f4"}, DTypeError, r"dtype must be float64, .*got '>f4'"),
        ({"rng": "seed"}, ParameterError, r"rng must be None, an int .*got 'seed'"),
        ({"combine": "nothing like it"}, PluginError, r"combination must be an installed name"),
        ({"combine": 7}, ParameterError, r"combination must be an installed name, .*got 7"),
    ],
)
def test_sizes_that_make_no_layer_are_refused(arguments, error, told):
    with pytest.raises(error, match=told):
        mhakit.MultiHeadAttention(**{"model_width": M, "num_heads": H, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "told"),
    [
        (draw(M), ShapeError, r"x must be \(B, T, M\) or \(T, M\) with M=12, got shape \(12,\)"),
        (draw(1, B, T, M), ShapeError, r"x must be \(B, T, M\) or \(T, M\)"),
        (draw(B, T, M + 1), ShapeError, r"x must be .*M=12, got shape \(2, 5, 13\)"),
        (
            draw(B, T, M, dtype=np.float32),
            DTypeError,
            r"x must have the layer's dtype, float64, got",
        ),
        ([[0.0] * M], DTypeError, r"x must be an array, got list"),
        (np.ones((T, M), int), DTypeError, r"x must be float64.*got int64"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(x, error, told):
    layer = grouped()
    for verb in (layer, layer.heads, layer.project):
        with pytest.raises(error, match=told):
            verb(x)


@pytest.mark.parametrize(
    ("source", "error", "told"),
    [
        (
            draw(S, M),
            ShapeError,
            r"source must be \(B, S, M\) with B=2 and M=12 as x is, got shape",
        ),
        (draw(B + 1, S, M), ShapeError, r"source must be \(B, S, M\) with B=2 and M=12"),
        (draw(B, S, M - 1), ShapeError, r"source must be \(B, S, M\) with B=2 and M=12"),
        (draw(B, S, M, dtype=np.float32), DTypeError, r"source must have the layer's dtype"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, error, told):
    with pytest.raises(error, match=told):
        grouped()(draw(B, T, M), source)


def test_a_source_with_a_batch_is_refused_where_the_input_has_none():
    with pytest.raises(ShapeError, match=r"source must be \(S, M\) with M=12 as x is"):
        grouped()(draw(T, M), draw(1, S, M))


def test_heads_of_other_sizes_are_not_combined():
    layer = grouped()
    with pytest.raises(ShapeError, match=r"heads must be .* with H=6 and E=4, got shape"):
        layer.combine(draw(B, H, T, E + 1))
    with pytest.raises(
        ShapeError, match=r"hidden_states must be \(B, T, M\) = \(2, 5, 12\) as heads is, got shape"
    ):
        layer.combine(draw(B, H, T, E), draw(B, T + 1, M))


def test_a_keyword_that_a_layer_does_not_take_is_refused():
    for keyword in ("maks", "layout", "out", "return_lse"):
        with pytest.raises(TypeError, match=f"a layer takes no keyword '{keyword}'"):
            grouped()(draw(B, T, M), **{keyword: None})


def test_what_attention_refuses_the_layer_refuses():
    with pytest.raises(ParameterError, match=r"causal=True must come with T = S"):
        grouped()(draw(B, T, M), draw(B, S, M), causal=True)
