"""What mixed attention refuses, of a caller and of a mixing."""

import numpy as np
import pytest

import mhakit
from material.mixings import ByWord, Idle
from mhakit import MixingNotFound, OutOfMemory, ParameterError, PluginError, ShapeError
from mhakit.plugin_api import HeadMixing, ParameterSpec


def of_shape(*shape):
    return np.zeros(shape, np.float32)


CALL = {
    "query": of_shape(2, 4, 5, 8),
    "key": of_shape(2, 4, 7, 8),
    "value": of_shape(2, 4, 7, 6),
    "mixing": "talking_heads",
    "parameters": {"score_projection": np.eye(4), "weight_projection": np.eye(4)},
}
STATES = {"hidden_states": of_shape(2, 5, 3), "source_states": of_shape(2, 7, 3)}


class Returns(HeadMixing):
    name = "returns"
    reference = "a test"

    def __init__(self, what=None):
        self.what = what

    def mix_weights(self, weights, parameters, **_):
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


WRONG = {
    "value": ({"value": of_shape(2, 4, 6, 6)}, ShapeError, "value must have B=2 and S=7 as key has, and heads and E of at least 1, got B=2, S=6, 4 heads and E=6"),
    "rank of value": ({"value": of_shape(4, 7, 6)}, ShapeError, r"value must be \(B, G, S, E\) as query has B, got shape \(4, 7, 6\)"),
    "dtype": ({"value": np.zeros((2, 4, 7, 6))}, mhakit.DTypeError, "value must have the dtype of query, float32, got float64"),
    "softmax_heads": ({"softmax_heads": 0}, ParameterError, "softmax_heads must be an int of at least 1, got 0"),
    "value_heads": ({"value_heads": 2.0}, ParameterError, "value_heads must be an int of at least 1, got 2.0"),
    "shared values": ({"value_heads": 6}, ShapeError, "value must have heads that divide value_heads=6, got 4 heads"),
    "mask": ({"mask": np.ones((3, 5, 7), bool), "softmax_heads": 2}, ShapeError, r"mask must be broadcastable to \(B, softmax_heads, T, S\) = \(2, 2, 5, 7\), got shape \(3, 5, 7\)"),
    "mask's dtype": ({"mask": np.ones(7)}, mhakit.DTypeError, "mask must be bool, True where a source may be seen, got float64"),
    "bias": ({"bias": of_shape(4, 7)}, ShapeError, r"bias must be broadcastable to \(B, softmax_heads, T, S\)"),
    "layout": ({"layout": "TBHD"}, ParameterError, "layout must be 'BHTD' or 'BTHD', got 'TBHD'"),
    "backend": ({"backend": "gpu"}, ParameterError, "backend must be None or one of"),
    "causal": ({"causal": True}, ParameterError, "causal=True must come with T = S or a query_offset"),
    "hidden_states": ({"hidden_states": of_shape(2, 4, 3)}, ShapeError, r"hidden_states must be \(B, T, M\) with B=2 and T=5 and M of at least 1, got shape \(2, 4, 3\)"),
    "source_states": ({"source_states": of_shape(7, 3)}, ShapeError, r"source_states must be \(B, S, M\) with B=2 and S=7"),
    "two widths": (STATES | {"source_states": of_shape(2, 7, 4)}, ShapeError, "source_states must have M=3 as hidden_states has, got M=4"),
    "no states": ({"mixing": ByWord, "parameters": None}, ParameterError, "hidden_states must be given, mixing 'by_word' reads the layer's input, got None"),
    "no source states": ({"mixing": ByWord, "parameters": None, "hidden_states": of_shape(2, 5, 3)}, ParameterError, "source_states must be given, mixing 'by_word' reads the layer's input at the sources, got None and T=5, S=7"),
    "no parameters": ({"parameters": None}, ParameterError, "parameters of 'talking_heads' must be: score_projection, weight_projection, got none named 'score_projection'"),
    "a misspelt parameter": ({"parameters": {"score_projektion": of_shape(4, 4)}}, ParameterError, "got 'score_projektion'; did you mean 'score_projection'"),
    "a parameter's shape": ({"softmax_heads": 3}, ShapeError, r"parameters\['score_projection'\] of 'talking_heads' must have shape \(4, 3\) for 4 heads of scores, 3 of softmax, 4 of values, got shape \(4, 4\)"),
    "unknown": ({"mixing": "talking"}, MixingNotFound, "mixing must be an installed name, got 'talking'"),
    "returns nothing": ({"mixing": Returns(), "parameters": None}, PluginError, r"mixing 'returns' must return floats \(B, heads, T, S\) = \(2, 4, 5, 7\) from mix_weights, got None"),
    "returns a shape": ({"mixing": Returns(of_shape(2, 3, 5, 7)), "parameters": None}, PluginError, r"from mix_weights, got float32 of shape \(2, 3, 5, 7\)"),
    "raises": ({"mixing": Returns(OSError("no file")), "parameters": None}, PluginError, "mixing 'returns' must run mix_weights without an error, got OSError: no file"),
    "runs out of memory": ({"mixing": Returns(MemoryError()), "parameters": None}, OutOfMemory, r"what mix_weights of 'returns' makes of shape \(2, 4, 5, 7\) and dtype float32 must fit in memory, got a request of 1,120 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_bad_input_is_named_with_its_rule(fault):
    changed, error, message = WRONG[fault]
    with pytest.raises(error, match=message):
        mhakit.mixed_attention(**(CALL | changed))


def test_scores_that_do_not_fit_in_memory_are_refused_with_their_size():
    wide = np.broadcast_to(np.float32(0), (1, 4, 2**24, 8))
    with pytest.raises(
        OutOfMemory, match=r"the scores of mixed attention of shape .* got a request of"
    ):
        mhakit.mixed_attention(wide, wide, wide, "talking_heads", CALL["parameters"])


def test_a_mix_that_is_left_out_needs_equal_counts():
    talking = mhakit.registry.find_mixing("talking_heads")
    with pytest.raises(
        ParameterError,
        match="heads must be as many before as after scores where scores=False, got 4 and 3; leave scores=True",
    ):
        mhakit.mixing_parameters(talking(scores=False), score_heads=4, softmax_heads=3)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"score_heads": 0}, ParameterError, "score_heads must be an int of at least 1, got 0"),
        ({"score_heads": 2, "dtype": int}, mhakit.DTypeError, "dtype must be float64, float32"),
        ({"score_heads": 2, "rng": "x"}, ParameterError, "rng must be None, an int"),
        ({"score_heads": 2, "model_width": -1}, ParameterError, "model_width must be an int of at"),
    ],
)
def test_mixing_parameters_of_impossible_sizes_are_refused(keywords, error, message):
    with pytest.raises(error, match=message):
        mhakit.mixing_parameters("talking_heads", **keywords)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (np.ones(3), "mixing 'idle' must give parameters as a dict of names to ParameterSpec"),
        (ParameterSpec((3,), "identity"), "mixing 'idle' must initialise 'weight' of shape"),
    ],
)
def test_a_mixing_whose_parameters_break_the_rules_is_named(spec, message):
    class Careless(Idle):
        def parameters(self, shape):
            return {"weight": spec}

    with pytest.raises(PluginError, match=message):
        mhakit.mixing_parameters(Careless, score_heads=2)
