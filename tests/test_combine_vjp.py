"""Pulling gradients back through a combination: on every backend, and what is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import mhakit
from mhakit.backends.cpu import launch
from mhakit.errors import BackendUnavailable, DTypeError, ParameterError, PluginError, ShapeError
from mhakit.plugin_api import CombinationPlan, HeadCombination, ParameterSpec

B, H, T, E, M = 2, 6, 40, 7, 9


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    """Each backend that has gradients."""
    return request.param


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def slope(function, at, direction, step=1e-6):
    """Return the derivative along a direction; the step is too short to change a maximum."""
    return (function(at + step * direction) - function(at - step * direction)) / (2 * step)


class Factors(HeadCombination):
    """Learned factors of any shape, groups and reduction, projected."""

    name = "factors"
    reference = "a test"

    def __init__(self, shape=(H, 1, 1), groups=H, reduce="sum", projected=True):
        self.shape, self.groups, self.reduce = shape, groups, reduce
        self.projected = projected

    def parameters(self, shape):
        specs = {"factors": ParameterSpec(self.shape)}
        if self.projected:
            specs["weight"] = ParameterSpec((self.groups * shape.head_width, shape.model_width))
            specs["bias"] = ParameterSpec((shape.model_width,))
        return specs

    def plan(self, heads, parameters, **given):
        return CombinationPlan(
            self.groups,
            parameters.get("weight"),
            parameters.get("bias"),
            parameters["factors"],
            self.reduce,
        )

    def learned(self):
        learned = {"factors": draw(*self.shape, seed=3)}
        if self.projected:
            learned |= {"weight": draw(self.groups * E, M, seed=1), "bias": draw(M, seed=2)}
        return learned


SHAPES = {
    "one number": (),
    "by head": (H, 1, 1),
    "by batch and head": (B, H, 1, 1),
    "by word": (B, H, T, 1),
    "by word alone": (T, 1),
    "by element": (B, H, T, E),
    "by channel": (E,),
    "by head and channel": (H, 1, E),
}


def assert_gradients(strategy, heads, learned, backend, **keywords):
    """Hold every gradient against central differences of <output, d_output> in float64."""
    output, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend, **keywords)
    np.testing.assert_array_equal(
        output, mhakit.combine(heads, strategy, learned, backend=backend, **keywords)
    )
    dY = draw(*output.shape, seed=11)
    gradients = pullback(dY)

    def loss(z, values, keywords):
        return (mhakit.combine(z, strategy, values, backend="reference", **keywords) * dY).sum()

    sides = {"heads": (heads, gradients.heads, lambda z: loss(z, learned, keywords))}
    if gradients.hidden_states is not None:
        x = keywords["hidden_states"]
        sides["hidden_states"] = (
            x,
            gradients.hidden_states,
            lambda x: loss(heads, learned, {**keywords, "hidden_states": x}),
        )
    assert gradients.parameters.keys() == learned.keys()
    for name, value in learned.items():
        sides[name] = (
            value,
            gradients.parameters[name],
            lambda v, name=name: loss(heads, {**learned, name: v}, keywords),
        )
    for name, (at, gradient, function) in sides.items():
        assert gradient.shape == at.shape, name
        direction = draw(*at.shape, seed=12)
        terms = np.abs(gradient * direction).sum() + 1
        assert abs(slope(function, at, direction) - (gradient * direction).sum()) < 1e-7 * terms


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("groups", [1, 2, H])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_plan_of_parameters_needs_no_code_to_be_differentiated(backend, shape, groups, reduce):
    strategy = Factors(SHAPES[shape], groups, reduce)
    assert_gradients(strategy, draw(B, H, T, E), strategy.learned(), backend)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("shape", ["by head", "by word", "by head and channel", "by element"])
def test_both_forms_of_the_kernel_give_the_same_bits(monkeypatch, shape, real, reduce):
    wide = 45  # numbers of a head: several registers of them, and some over
    sizes = tuple(wide if n == E else n for n in SHAPES[shape])
    strategy, heads = Factors(sizes, 2, reduce, False), draw(B, H, T, wide, dtype=real)
    learned = {"factors": draw(*sizes, seed=3)}
    results = []
    for limit in (0, float("inf")):
        monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
        _, pullback = mhakit.combine_vjp(heads, strategy, learned)
        results.append(pullback(draw(B, T, 2 * wide, seed=4)))
    parallel, serial = results
    np.testing.assert_array_equal(parallel.heads, serial.heads)
    np.testing.assert_array_equal(parallel.parameters["factors"], serial.parameters["factors"])


def test_without_a_projection_the_gradient_is_memory_of_its_own(backend):
    for groups, shape in ((H, ()), (1, (H, 1, 1))):
        strategy = Factors(shape, groups, projected=False)
        assert_gradients(strategy, draw(B, H, T, E), strategy.learned(), backend)

    class Plain(HeadCombination):
        name, reference = "plain", "a test"

        def plan(self, heads, parameters, **given):
            return CombinationPlan(heads.shape[1])

    dY = draw(B, T, H * E)
    gradients = mhakit.combine_vjp(draw(B, H, T, E), Plain, backend=backend)[1](dY)
    assert not np.shares_memory(gradients.heads, dY)
    np.testing.assert_array_equal(gradients.heads.swapaxes(1, 2).reshape(dY.shape), dY)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("shape", ["by head", "by element"])
def test_a_head_of_weight_zero_gets_zero_and_hides_what_it_holds(backend, shape, reduce):
    strategy, heads = Factors(SHAPES[shape], 2, reduce), draw(B, H, T, E)
    learned = strategy.learned()
    learned["factors"][..., 1, :, :] = 0
    clean = mhakit.combine_vjp(heads, strategy, learned, backend=backend)[1](np.ones((B, T, M)))
    assert not clean.heads[:, 1].any()
    if reduce == "sum":  # the weight could grow: its gradient is <Z, D>, not 0
        assert clean.parameters["factors"][..., 1, :, :].all()
    for garbage in (np.nan, np.inf, -np.inf):
        heads[:, 1] = garbage
        _, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
        gradients = pullback(np.ones((B, T, M)))
        np.testing.assert_array_equal(gradients.heads, clean.heads)
        factors = gradients.parameters["factors"]
        assert not factors[..., 1, :, :].any()
        for h in (0, 2, 5):
            np.testing.assert_array_equal(
                factors[..., h, :, :], clean.parameters["factors"][..., h, :, :]
            )
    heads[:, 1] = 1
    _, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
    with np.errstate(invalid="ignore"):
        assert not pullback(np.full((B, T, M), np.inf)).heads[:, 1].any()


def test_of_equally_large_heads_the_first_gets_it_all_and_a_nan_wins(backend):
    class Largest(HeadCombination):
        name, reference = "largest", "a test"

        def plan(self, heads, parameters, **given):
            return CombinationPlan(1, reduce="max")

    heads = np.array([1.0, 3.0, 3.0, 2.0]).reshape(1, 4, 1, 1)
    gradients = mhakit.combine_vjp(heads, Largest, backend=backend)[1](np.full((1, 1, 1), 5.0))
    assert gradients.heads.ravel().tolist() == [0, 5, 0, 0]
    heads[0, 2:] = np.nan
    gradients = mhakit.combine_vjp(heads, Largest, backend=backend)[1](np.full((1, 1, 1), 5.0))
    assert gradients.heads.ravel().tolist() == [0, 0, 5, 0]


@pytest.mark.parametrize("name", ["concat_project", "average"])
def test_gradients_come_in_the_dtype_of_what_they_belong_to(backend, dtype, name):
    heads = draw(B, H, T, E, dtype=dtype)
    inner = E if name == "average" else H * E
    learned = {"weight": draw(inner, M, dtype=ml_dtypes.bfloat16), "bias": draw(M)}
    output, pullback = mhakit.combine_vjp(heads, name, learned, backend=backend)
    gradients = pullback(draw(B, T, M, dtype=np.float32, seed=5))
    assert output.dtype == gradients.heads.dtype == dtype
    assert gradients.hidden_states is None
    assert {n: g.dtype for n, g in gradients.parameters.items()} == {
        "weight": ml_dtypes.bfloat16,
        "bias": np.float64,
    }
    wide = {n: a.astype(np.float64) for n, a in learned.items()}
    exact = mhakit.combine_vjp(heads.astype(np.float64), name, wide, backend="reference")[1](
        draw(B, T, M, dtype=np.float32, seed=5).astype(np.float64)
    )
    rounding = 16 * float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(
        gradients.heads.astype(np.float64),
        exact.heads,
        rtol=0,
        atol=rounding * abs(exact.heads).max(),
    )


class Gate(HeadCombination):
    """Gates, one a head, from the layer's input: all three gradients flow through the plan."""

    name = "gate"
    reference = "a test"
    uses_hidden_states = True
    stochastic = True

    def parameters(self, shape):
        return {
            "gate": ParameterSpec((shape.model_width, shape.num_heads)),
            "weight": ParameterSpec((shape.concat_width, shape.model_width)),
        }

    def plan(self, heads, parameters, *, hidden_states, training, rng):
        logits = (hidden_states @ parameters["gate"]).swapaxes(1, 2)[..., None]
        gates = 1 / (1 + np.exp(-logits - heads.mean(axis=-1, keepdims=True)))
        if rng is not None:
            gates = gates * rng.random((heads.shape[0], heads.shape[1], 1, 1))
        return Drawn(heads.shape[1], parameters["weight"], head_weights=gates, logits=logits)

    def plan_vjp(self, d_plan, heads, parameters, *, plan, hidden_states, training):
        assert d_plan.weight is not None
        assert d_plan.bias is None
        assert not d_plan.head_weights.flags.writeable
        s = 1 / (1 + np.exp(-plan.logits - heads.mean(axis=-1, keepdims=True)))
        d_logits = d_plan.head_weights * plan.head_weights * (1 - s)
        by_word = d_logits[..., 0].swapaxes(1, 2)
        d_gate = np.einsum("btm,bth->mh", hidden_states, by_word)
        d_heads = np.broadcast_to(d_logits / heads.shape[-1], heads.shape)
        return d_heads, by_word @ parameters["gate"].T, {"gate": d_gate}


class Drawn(CombinationPlan):
    """A plan that carries its logits from plan to plan_vjp."""

    def __init__(self, *args, logits, **fields):
        super().__init__(*args, **fields)
        object.__setattr__(self, "logits", logits)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_flow_through_the_plan_to_heads_hidden_states_and_parameters(backend, training):
    learned = {"gate": draw(M, H, seed=1), "weight": draw(H * E, M, seed=2)}
    x = draw(B, T, M, seed=3)
    keywords = {"hidden_states": x, "training": training, "rng": 7}
    assert_gradients(Gate(), draw(B, H, T, E), learned, backend, **keywords)


def test_the_batch_axis_may_be_left_out_of_gradients_too(backend):
    learned = {"gate": draw(M, H, seed=1), "weight": draw(H * E, M, seed=2)}
    heads, x, dY = draw(1, H, T, E), draw(1, T, M, seed=3), draw(1, T, M, seed=4)
    whole = mhakit.combine_vjp(heads, Gate, learned, hidden_states=x, backend=backend)[1](dY)
    output, pullback = mhakit.combine_vjp(
        heads[0], Gate, learned, hidden_states=x[0], backend=backend
    )
    alone = pullback(dY[0])
    assert output.shape == (T, M)
    np.testing.assert_array_equal(alone.heads, whole.heads[0])
    np.testing.assert_array_equal(alone.hidden_states, whole.hidden_states[0])


def test_no_words_give_gradients_of_zero(backend, dtype):
    for shape in ((B, H, 0, E), (0, H, T, E)):
        for strategy in (Factors(), Factors(groups=1, reduce="max")):
            learned = {name: np.ones(a.shape) for name, a in strategy.learned().items()}
            heads = np.empty(shape, dtype)
            output, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
            gradients = pullback(np.empty(output.shape))
            assert gradients.heads.shape == shape
            for name, gradient in gradients.parameters.items():
                assert gradient.shape == learned[name].shape
                assert not gradient.any()


def test_a_pullback_can_be_asked_twice_and_writes_nothing(backend):
    strategy, heads, dY = Factors(), draw(B, H, T, E), draw(B, T, M, seed=4)
    learned = strategy.learned()
    kept = [a.copy() for a in (heads, dY, *learned.values())]
    _, pullback = mhakit.combine_vjp(heads, strategy, learned, backend=backend)
    first = pullback(dY)
    first.heads[...] = first.parameters["weight"][...] = 0  # the caller's own
    again, third = pullback(dY), pullback(dY)
    assert again.heads.any()
    np.testing.assert_array_equal(again.heads, third.heads)
    for array, before in zip((heads, dY, *learned.values()), kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_a_transposed_parameter_in_a_field_is_not_taken_for_the_parameter():
    class Transposed(HeadCombination):
        name, reference = "transposed", "a test"

        def parameters(self, shape):
            return {"matrix": ParameterSpec((shape.head_width, shape.head_width))}

        def plan(self, heads, parameters, **given):
            return CombinationPlan(1, parameters["matrix"].T)

        def plan_vjp(self, d_plan, heads, parameters, **given):
            return None, None, {"matrix": d_plan.weight.T}

    assert_gradients(Transposed(), draw(B, H, T, E), {"matrix": draw(E, E, seed=1)}, "cpu")


def test_a_parameter_that_lies_in_memory_by_strides_is_found_in_its_field(backend):
    strategy = Factors()
    learned = strategy.learned()
    learned["weight"] = np.asfortranarray(learned["weight"])
    learned["factors"] = draw(2 * H, 1, 1, seed=3)[::2]
    assert_gradients(strategy, draw(B, H, T, E), learned, backend)


# ---- strategies that no plan says ------------------------------------------------------------


class Sine(HeadCombination):
    name, reference, linear_in_heads = "sine", "a test", False
    uses_hidden_states = True

    def parameters(self, shape):
        return {"gain": ParameterSpec((shape.head_width,))}

    def forward(self, heads, parameters, *, hidden_states, training, rng):
        gained = np.sin(heads).mean(axis=1) * parameters["gain"]
        return gained * hidden_states, (heads, hidden_states, gained)

    def backward(self, d_output, residuals, parameters):
        heads, x, gained = residuals
        d_gained = d_output * x
        d_heads = np.cos(heads) * (d_gained * parameters["gain"])[:, None] / heads.shape[1]
        d_gain = (d_gained * np.sin(heads).mean(axis=1)).sum(axis=(0, 1))
        return d_heads, d_output * gained, {"gain": d_gain}


def test_a_strategy_without_a_plan_runs_its_backward(backend):
    keywords = {"hidden_states": draw(B, T, E, seed=3)}
    assert_gradients(Sine(), draw(B, H, T, E), {"gain": draw(E)}, backend, **keywords)


def test_what_backward_returns_is_copied_from_its_residuals():
    class Lender(Sine):
        def backward(self, d_output, residuals, parameters):
            return residuals[0], residuals[1], {"gain": parameters["gain"]}

    heads, x, gain = draw(B, H, T, E), draw(B, T, E), draw(E)
    _, pullback = mhakit.combine_vjp(heads, Lender, {"gain": gain}, hidden_states=x)
    gradients = pullback(np.ones((B, T, E)))
    for gradient, array in zip(
        (gradients.heads, gradients.hidden_states, gradients.parameters["gain"]),
        (heads, x, gain),
        strict=True,
    ):
        assert not np.shares_memory(gradient, array)
        gradient[...] = 0


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dY", "error", "told"),
    [
        (draw(T, M), ShapeError, r"d_output must have the shape of the output, \(2, 40, 9\), got shape \(40, 9\)"),
        (draw(B, T, M + 1), ShapeError, r"d_output must have the shape of the output, .* got shape \(2, 40, 10\)"),
        (np.ones((B, T, M), int), DTypeError, r"d_output must be float64.*got int64"),
        ([1.0], DTypeError, r"d_output must be an array, got list"),
    ],
)  # fmt: skip
def test_a_gradient_that_does_not_fit_the_output_is_refused(dY, error, told):
    learned = {"weight": draw(E, M), "bias": draw(M)}
    _, pullback = mhakit.combine_vjp(draw(B, H, T, E), "average", learned)
    with pytest.raises(error, match=told):
        pullback(dY)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: mhakit.combine_vjp(draw(H, E), "average"), ShapeError, r"heads must be \(B, H, T, E\)"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), "averag"), PluginError, r"did you mean 'average'"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), "average", {"weight": draw(E, M)}), ParameterError, r"got none named 'bias'"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), Sine, {"gain": draw(E)}), ParameterError, r"hidden_states must be given"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), Factors, {}, backend="cuda"), ParameterError, r"got none named 'factors'"),
        (lambda: mhakit.combine_vjp(draw(B, H, T, E), Factors(projected=False), {"factors": draw(H, 1, 1)}, backend="cuda"), BackendUnavailable, r"backend 'cuda'"),
    ],
)  # fmt: skip
def test_what_combine_refuses_its_gradient_refuses(call, error, told):
    with pytest.raises(error, match=told):
        call()


class Answering(HeadCombination):
    """A gradient of any kind, given when it is made; Z is scaled by a copy of its parameter."""

    name, reference = "answering", "a test"

    def __init__(self, answer=None, field="copied", reads=False):
        self.answer, self.field = answer, field
        self.uses_hidden_states = reads

    def parameters(self, shape):
        return {"gain": ParameterSpec((shape.num_heads,))}

    def plan(self, heads, parameters, **given):
        gain = parameters["gain"][:, None, None]
        return CombinationPlan(1, head_weights=gain if self.field == "own" else gain.copy())

    def plan_vjp(self, d_plan, heads, parameters, *, plan, hidden_states, training):
        return self.answer


GAIN = {"gain": np.zeros(H)}


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (Answering(None), r"d_heads, d_hidden_states, d_parameters from plan_vjp, got NoneType"),
        (Answering((None, GAIN)), r"d_heads, d_hidden_states, d_parameters from plan_vjp, got 2 values"),
        (Answering((None, None, [1])), r"d_parameters as a dict by name from plan_vjp, got list"),
        (Answering((None, None, {"gian": 1})), r"gradients of its parameters alone \(gain\) from plan_vjp, got 'gian'"),
        (Answering((None, None, {})), r"a gradient of 'gain', which is no field of its plan, from plan_vjp, got none"),
        (Answering((None, None, {"gain": np.zeros((H, 1))})), r"a gradient of 'gain' of shape \(6,\) from plan_vjp, got float64 of shape \(6, 1\)"),
        (Answering((None, None, {"gain": np.zeros(H, int)})), r"a gradient of 'gain' of shape \(6,\) from plan_vjp, got int64"),
        (Answering((None, None, {"gain": None})), r"a gradient of 'gain' of shape \(6,\) from plan_vjp, got None"),
        (Answering((np.zeros((B, T, E)), None, GAIN)), r"d_heads \(B, H, T, E\) = \(2, 6, 40, 7\) from plan_vjp, got float64 of shape \(2, 40, 7\)"),
        (Answering((None, np.zeros((B, T, E)), GAIN)), r"None for d_hidden_states, as uses_hidden_states is False, from plan_vjp, got ndarray"),
        (Answering((None, None, GAIN), reads=True), r"d_hidden_states \(B, T, M\) = \(2, 40, 7\), as it reads hidden_states, from plan_vjp, got None"),
        (Answering((None, None, GAIN), field="own"), r"no gradient of 'gain', which is a field of its plan that mhakit differentiates \(plan a copy .*\) from plan_vjp, got one"),
    ],
)  # fmt: skip
def test_a_plan_vjp_that_breaks_a_rule_is_refused_with_the_rule(strategy, told):
    x = draw(B, T, E)
    _, pullback = mhakit.combine_vjp(draw(B, H, T, E), strategy, {"gain": draw(H)}, hidden_states=x)
    with pytest.raises(PluginError, match=r"combination 'answering' must return " + told):
        pullback(np.ones((B, T, E)))


def test_a_strategy_whose_plan_reads_more_than_its_fields_must_say_how():
    class Silent(Answering):
        plan_vjp = HeadCombination.plan_vjp

    _, pullback = mhakit.combine_vjp(draw(B, H, T, E), Silent, {"gain": draw(H)})
    with pytest.raises(PluginError, match=r"'answering' must return a gradient of 'gain'"):
        pullback(np.ones((B, T, E)))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((None, np.zeros((B, T, E)), {"gain": np.zeros(E)}), r"must return d_heads .* from backward, got None"),
        ((np.zeros((B, H, T, E)), None, {"gain": np.zeros(E)}), r"must return d_hidden_states .* from backward, got None"),
        ((np.zeros((B, H, T, E)), np.zeros((B, T, E)), {}), r"must return a gradient of 'gain', .* from backward, got none"),
        (3, r"must return d_heads, d_hidden_states, d_parameters from backward, got int"),
        (KeyError("gain"), r"must run backward without an error, got KeyError: 'gain'"),
        (NotImplementedError(), r"must define backward to be differentiated, got forward alone"),
    ],
)  # fmt: skip
def test_a_backward_that_breaks_a_rule_is_refused_with_the_rule(answer, told):
    class Wrong(Sine):
        def backward(self, *_):
            if isinstance(answer, Exception):
                raise answer
            return answer

    _, pullback = mhakit.combine_vjp(
        draw(B, H, T, E), Wrong, {"gain": draw(E)}, hidden_states=draw(B, T, E)
    )
    with pytest.raises(PluginError, match=r"combination 'sine' " + told):
        pullback(np.ones((B, T, E)))


def test_a_plan_vjp_that_fails_is_named_with_its_cause():
    class Failing(Gate):
        def plan_vjp(self, *_, **__):
            raise IndexError("gate 7")

    learned = {"gate": draw(M, H), "weight": draw(H * E, M)}
    _, pullback = mhakit.combine_vjp(
        draw(B, H, T, E), Failing, learned, hidden_states=draw(B, T, M)
    )
    with pytest.raises(
        PluginError, match=r"'gate' must run plan_vjp without an error, got IndexError: gate 7"
    ):
        pullback(np.ones((B, T, M)))
