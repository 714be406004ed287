"""However the heads lie in memory the result is the same, and nothing of the caller's is written."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import mhakit
from material.arrays import draw, unaligned
from material.combinations import FACTORS, B, E, H, M, Planned, T, learned
from mhakit.backends.cpu import combination as cpu
from mhakit.backends.cpu import launch
from mhakit.errors import PluginError
from mhakit.plugin_api import ParameterSpec


def views_of(heads):
    """Return the same numbers as views of all kinds."""
    words_first = np.ascontiguousarray(heads.swapaxes(1, 2)).swapaxes(1, 2)
    sparse = np.zeros((*heads.shape[:3], 2 * E), heads.dtype)
    sparse[..., ::2] = heads
    longer = np.zeros((B, T + 3, H, E), heads.dtype)
    longer[:, 2 : T + 2] = heads.swapaxes(1, 2)
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
        "unaligned": unaligned(heads),
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
