"""Bad input: a named error that says the rule, what came and the way out."""

import numpy as np
import pytest

import mhakit
from mhakit import DTypeError, ParameterError, ShapeError

QUERY = np.zeros((2, 4, 5, 8), np.float32)
KEY = np.zeros((2, 2, 7, 8), np.float32)
VALUE = np.zeros((2, 2, 7, 3), np.float32)


class Unreadable:
    def __array__(self, *_, **__):
        raise RuntimeError("lives on another device")


BAD_ARRAYS = {
    "rank of query": (QUERY[0, 0], KEY, VALUE, ShapeError, r"query must be \(B, H, T, D\) .*got shape \(5, 8\)"),
    "rank of key": (QUERY, KEY[0], VALUE, ShapeError, r"key must be \(B, G, S, D\) as query has B, got shape \(2, 7, 8\)"),
    "rank of value": (QUERY[0], KEY[0], VALUE, ShapeError, r"value must be \(G, S, E\) as query has no B, got shape \(2, 2, 7, 3\)"),
    "width of key": (QUERY, KEY[..., :7], VALUE, ShapeError, "key must have B=2 and D=8 as query has, got B=2 and D=7"),
    "batch of key": (QUERY, KEY[:1], VALUE[:1], ShapeError, "key must have B=2 and D=8 as query has, got B=1 and D=8"),
    "heads": (QUERY[:, :3], KEY, VALUE, ShapeError, "key must have G heads that divide H=3 of query, got G=2"),
    "no heads": (QUERY[:, :0], KEY, VALUE, ShapeError, "query must have H and D of at least 1, got H=0 and D=8"),
    "no width": (QUERY[..., :0], KEY[..., :0], VALUE, ShapeError, "query must have H and D of at least 1, got H=4 and D=0"),
    "no key heads": (QUERY, KEY[:, :0], VALUE[:, :0], ShapeError, "key must have G heads that divide H=4 of query, got G=0"),
    "sources of value": (QUERY, KEY, VALUE[:, :, :6], ShapeError, "value must have B=2, G=2 and S=7 as key has, got B=2, G=2 and S=6"),
    "no value width": (QUERY, KEY, VALUE[..., :0], ShapeError, "value must have E of at least 1, got E=0"),
    "int": (QUERY.astype(int), KEY, VALUE, DTypeError, "query must be float64, float32, float16 or bfloat16, got int64"),
    "complex": (QUERY, KEY.astype(complex), VALUE, DTypeError, "key must be float64, .* got complex128"),
    "mixed": (QUERY, KEY, VALUE.astype(np.float64), DTypeError, "value must have the dtype of query, float32, got float64"),
    "byte order": (QUERY.astype(">f4"), KEY, VALUE, DTypeError, r"query must be in this machine's byte order, got >f4; pass query.astype"),
    "a list": ([[1.0]], KEY, VALUE, DTypeError, r"query must be an array, got list; pass np.asarray\(query\)"),
    "no array": (QUERY, "key", VALUE, DTypeError, "key must be an array, got str"),
    "None": (QUERY, KEY, None, DTypeError, "value must be an array, got NoneType"),
    "masked array": (QUERY, KEY, np.ma.masked_array(VALUE), DTypeError, "value must not be a masked array, .* pass its .data"),
    "unreadable": (Unreadable(), KEY, VALUE, DTypeError, r"query must be an array on the CPU that NumPy can read, got Unreadable \(lives on another device\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_wrong_arrays_are_named(name, backend):
    query, key, value, error, message = BAD_ARRAYS[name]
    with pytest.raises(error, match=message):
        mhakit.attention(query, key, value, backend=backend)


BAD_KEYWORDS = {
    "mask shape": ({"mask": np.ones((3, 7), bool)}, ShapeError, r"mask must be broadcastable to \(B, H, T, S\) = \(2, 4, 5, 7\), got shape \(3, 7\)"),
    "mask dtype": ({"mask": np.ones((5, 7))}, DTypeError, "mask must be bool, True where a source may be seen, got float64; .* as bias="),
    "mask int": ({"mask": np.ones((5, 7), np.uint8)}, DTypeError, "mask must be bool, .* got uint8"),
    "bias shape": ({"bias": np.ones((2, 5, 7))}, ShapeError, r"bias must be broadcastable to .* got shape \(2, 5, 7\)"),
    "bias dtype": ({"bias": np.ones((5, 7), int)}, DTypeError, "bias must be float64, .* got int64"),
    "causal": ({"causal": True}, ParameterError, "causal=True must come with T = S or a query_offset, got T=5 and S=7, .* pass causal='top_left'"),
    "causal name": ({"causal": "left"}, ParameterError, "causal must be None, 'top_left', 'bottom_right' or True, got 'left'"),
    "causal number": ({"causal": 1}, ParameterError, "causal must be None, .* got 1"),
    "causal and offset": ({"causal": "top_left", "query_offset": 1}, ParameterError, "causal must not name an alignment where query_offset is given, got 'top_left' and both"),
    "window without place": ({"window": (1, 1)}, ParameterError, "window must come with T = S, a query_offset or an alignment, got T=5 and S=7"),
    "negative window": ({"window": (1, -1), "query_offset": 0}, ParameterError, "window must reach 0 or more sources to the right, or None, got -1"),
    "window of one": ({"window": (1,), "query_offset": 0}, ParameterError, r"window must be \(left, right\), each an int or None, got \(1,\)"),
    "window of floats": ({"window": (1.5, 0), "query_offset": 0}, DTypeError, "window's left must be integers, got float64"),
    "window of lists": ({"window": ([1], 0), "query_offset": 0}, ParameterError, r"window must reach 0 or more sources to the left, or None, got \[1\]"),
    "offset shape": ({"query_offset": [1, 2, 3]}, ShapeError, r"query_offset must be an int or \(B,\) ints with B=2, got shape \(3,\)"),
    "offset dtype": ({"query_offset": 0.5}, DTypeError, "query_offset must be integers, got float64"),
    "offset far": ({"query_offset": 2**61}, ParameterError, r"query_offset must lie within \+-2\*\*60"),
    "ragged": ({"key_lengths": [[1], [1, 2]]}, DTypeError, "key_lengths must be integers, got"),
    "negative length": ({"key_lengths": [-1, 7]}, ParameterError, r"key_lengths must lie in \[0, S\] with S=7, got -1"),
    "length past S": ({"key_lengths": [3, 8]}, ParameterError, r"key_lengths must lie in \[0, S\] with S=7, got 8"),
    "NaN scale": ({"scale": np.nan}, ParameterError, "scale must be a finite number, got nan"),
    "scale of text": ({"scale": "big"}, ParameterError, "scale must be a finite number, got 'big'"),
    "softcap 0": ({"softcap": 0}, ParameterError, "softcap must be greater than 0, or None, got 0.0"),
    "softcap inf": ({"softcap": np.inf}, ParameterError, "softcap must be a finite number, got inf"),
    "layout": ({"layout": "TBHD"}, ParameterError, "layout must be 'BHTD' or 'BTHD', got 'TBHD'"),
    "backend": ({"backend": "gpu"}, ParameterError, "backend must be None or one of 'reference', 'cpu', 'cuda', got 'gpu'"),
    "score_mod": ({"score_mod": 3}, ParameterError, r"score_mod must be a function \(score, b, h, t, s, \*score_args\) -> score, or an installed name, got int"),
    "score_mod's name": ({"score_mod": "alibli"}, mhakit.ScoreModNotFound, r"score mod must be an installed name, got 'alibli'; did you mean 'alibi'\?"),
    "score_args": ({"score_mod": abs, "score_args": 3}, ParameterError, "score_args must be a tuple, got int"),
    "score_args alone": ({"score_args": (3,)}, ParameterError, "score_args must come with a score_mod"),
}  # fmt: skip


@pytest.mark.parametrize(
    "function", ["attention", "attention_scores", "attention_weights", "explain"]
)
@pytest.mark.parametrize("name", BAD_KEYWORDS)
def test_wrong_keywords_are_named_by_every_function(name, function):
    keywords, error, message = BAD_KEYWORDS[name]
    arrays = (QUERY, KEY, VALUE) if function in ("attention", "explain") else (QUERY, KEY)
    with pytest.raises(error, match=message):
        getattr(mhakit, function)(*arrays, **keywords)


def test_without_B_offsets_and_lengths_are_single_ints():
    with pytest.raises(
        ShapeError, match=r"key_lengths must be an int, as query has no B, got shape \(1,\)"
    ):
        mhakit.attention(QUERY[0], KEY[0], VALUE[0], key_lengths=[7])
    with pytest.raises(
        ShapeError, match=r"mask must be broadcastable to \(H, T, S\) = \(4, 5, 7\)"
    ):
        mhakit.attention(QUERY[0], KEY[0], VALUE[0], mask=np.ones((1, 4, 5, 7), bool))


def test_sinks_are_one_float_for_each_query_head():
    with pytest.raises(ShapeError, match=r"sinks must be \(H,\) with H=4, got shape \(2,\)"):
        mhakit.attention(QUERY, KEY, VALUE, sinks=np.zeros(2))
    with pytest.raises(DTypeError, match=r"sinks must be float64, .* got int64"):
        mhakit.attention_weights(QUERY, KEY, sinks=np.zeros(4, int))


BAD_OUTS = {
    "no array": ([1.0], DTypeError, "out must be a NumPy array, got list"),
    "shape": (np.zeros((2, 4, 5, 8), np.float32), ShapeError, r"out must have shape \(2, 4, 5, 3\), got shape \(2, 4, 5, 8\)"),
    "dtype": (np.zeros((2, 4, 5, 3)), DTypeError, "out must have dtype float32, got float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OUTS)
def test_an_out_that_does_not_fit_is_named(name):
    out, error, message = BAD_OUTS[name]
    with pytest.raises(error, match=message):
        mhakit.attention(QUERY, KEY, VALUE, out=out)


def test_an_out_that_must_not_be_written_is_refused():
    out = np.zeros((2, 4, 5, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ParameterError, match="out must be writeable, got a read-only array"):
        mhakit.attention(QUERY, KEY, VALUE, out=out)
    shared = QUERY.copy()
    with pytest.raises(ParameterError, match="out must share no memory with query"):
        mhakit.attention(shared, KEY, KEY, out=shared)
    scores = np.zeros((3, 4))
    with pytest.raises(ParameterError, match="out must share no memory with scores"):
        mhakit.softmax(scores, out=scores)


def test_an_out_between_the_inputs_of_one_buffer_is_taken():
    buffer = np.zeros((2, 4, 5, 4, 8), np.float32)  # interleaved, no number shared
    parts = [buffer[..., i, :] for i in range(4)]
    for part in parts[:3]:
        part[...] = np.random.default_rng(0).standard_normal(part.shape)
    result = mhakit.attention(*parts[:3], out=parts[3])
    np.testing.assert_array_equal(result, mhakit.attention(*parts[:3]))


BAD_CALLS = {
    "softmax of a number": (lambda: mhakit.softmax(np.float32(3)), ShapeError, r"scores must have 1 to 4 axes, .* got shape \(\)"),
    "softmax of five axes": (lambda: mhakit.softmax(np.zeros((1,) * 5)), ShapeError, "scores must have 1 to 4 axes"),
    "sinks without heads": (lambda: mhakit.softmax(np.zeros((3, 4)), sinks=np.zeros(3)), ShapeError, r"scores must be \(B, H, T, S\) or \(H, T, S\) where sinks are given"),
    "heads past H": (lambda: mhakit.attention_weights(QUERY, KEY, heads=[4]), ParameterError, r"heads must lie in \[-4, 4\) as H=4, got 4"),
    "targets past T": (lambda: mhakit.attention_weights(QUERY, KEY, queries=[0, -6]), ParameterError, r"queries must lie in \[-5, 5\) as T=5, got -6"),
    "heads of floats": (lambda: mhakit.attention_weights(QUERY, KEY, heads=[0.0]), DTypeError, "heads must be integers, got float64"),
    "one head": (lambda: mhakit.attention_weights(QUERY, KEY, heads=1), ShapeError, r"heads must be a 1-D list of positions in H, got shape \(\)"),
    "weights of two axes": (lambda: mhakit.weighted_sum(np.zeros((3, 4)), np.zeros((4, 2))), ShapeError, r"weights must be \(B, H, T, S\) or \(H, T, S\), got shape \(3, 4\)"),
    "rank of values": (lambda: mhakit.weighted_sum(np.zeros((1, 3, 4)), np.zeros((4, 2))), ShapeError, r"value must have 3 axes as weights has, got shape \(4, 2\)"),
    "sources of values": (lambda: mhakit.weighted_sum(np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 5, 2))), ShapeError, "value must have B=1, S=4, G dividing H=2 and E of at least 1, got B=1, S=5, G=2, E=2"),
    "nothing to merge": (lambda: mhakit.merge_attention(), ParameterError, r"merge_attention must be given one \(output, lse\) pair or more, got none"),
    "no pair": (lambda: mhakit.merge_attention(QUERY), ParameterError, r"part 0 must be a pair \(output, lse\), got ndarray"),
    "rank of a part": (lambda: mhakit.merge_attention((QUERY[0, 0], QUERY[0, 0, :, 0])), ShapeError, r"output 0 must be \(B, H, T, E\) or \(H, T, E\), got shape \(5, 8\)"),
    "lse of a part": (lambda: mhakit.merge_attention((QUERY, QUERY[:, :, 1:, 0])), ShapeError, r"lse 0 must be \(B, H, T\) = \(2, 4, 5\), got shape \(2, 4, 4\)"),
    "lse dtype": (lambda: mhakit.merge_attention((QUERY, np.zeros((2, 4, 5)))), DTypeError, "lse 0 must be float32, got float64"),
    "parts differ": (lambda: mhakit.merge_attention((QUERY, QUERY[..., 0]), (QUERY[:, :2], QUERY[:, :2, :, 0])), ShapeError, r"output 1 must have the shape of output 0, \(2, 4, 5, 8\), got shape \(2, 2, 5, 8\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_wrong_calls_of_the_other_functions_are_named(name):
    function, error, message = BAD_CALLS[name]
    with pytest.raises(error, match=message):
        function()


def test_no_memory_says_how_many_bytes_were_asked_for():
    query = np.broadcast_to(np.float32(0), (2**14, 2**10, 2**18, 1))
    with pytest.raises(
        mhakit.OutOfMemory, match=r"must fit in memory, got a request of [\d,]+ bytes"
    ):
        mhakit.attention_scores(query, query)


def test_every_error_is_also_what_a_NumPy_user_would_catch():
    parents = {
        "ShapeError": ValueError, "DTypeError": TypeError, "ParameterError": ValueError,
        "CompileError": TypeError, "CheckpointError": ValueError, "OutOfMemory": MemoryError,
        "BackendUnavailable": ValueError, "PluginError": ValueError,
        "CombinationNotFound": LookupError, "MissingExtra": ImportError,
    }  # fmt: skip
    for name, parent in parents.items():
        error = getattr(mhakit, name)
        assert issubclass(error, parent)
        assert issubclass(error, mhakit.MhakitError)
    assert issubclass(mhakit.CombinationNotFound, mhakit.PluginError)
    assert issubclass(mhakit.MhakitWarning, UserWarning)
