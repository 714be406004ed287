"""On which stream work goes, and in what steps a large grid."""

import sys

import numpy as np

import mhakit
from material.device_arrays import KEY, QUERY, SCALED, VALUE, Held, Tensor
from mhakit.device import read


def test_work_goes_to_the_callers_stream_and_waits_for_the_others(device, monkeypatch):
    from numba import cuda

    from mhakit.backends.cuda import calling, launch

    started, waits = [], []

    class Event:
        def record(self, stream):
            self.of = stream

        def wait(self, stream):
            waits.append((self.of, stream))

    monkeypatch.setattr(cuda, "event", Event)
    monkeypatch.setattr(
        calling, "start", lambda *given: (started.append(given[3]), launch.start(*given))
    )
    output = mhakit.attention(Held(QUERY, stream=77), Held(KEY, stream=88), Held(VALUE))
    assert started == [77]
    assert waits == [(88, 77)]
    assert output.stream == 77
    tensor = Tensor(QUERY, stream=66)
    mhakit.attention(tensor, Tensor(KEY), Tensor(VALUE))
    assert tensor.asked == 66, "DLPack is asked to be ready on the stream that is worked on"
    assert started[1:] == [66]


def test_a_torch_tensor_is_worked_on_in_torchs_stream(device, monkeypatch):
    class Torch:
        Tensor = Tensor

        class cuda:
            @staticmethod
            def current_stream(device):
                return type("Stream", (), {"cuda_stream": 0})

    monkeypatch.setitem(sys.modules, "torch", Torch)
    tensor = Tensor(QUERY)
    tensor.device = "cuda:0"
    assert read(tensor, "query").stream == 1, "0 is the default stream, which DLPack calls 1"
    assert tensor.asked == 1


def test_a_grid_larger_than_the_devices_is_gone_through_in_steps(device, monkeypatch):
    from mhakit.backends.cuda import launch

    arrays = (QUERY, KEY, VALUE)
    weights = mhakit.attention_weights(QUERY, KEY)

    def run():
        yield mhakit.attention(*arrays, backend="cuda")
        yield mhakit.attention_scores(QUERY, KEY, backend="cuda")
        yield mhakit.attention_weights(QUERY, KEY, backend="cuda")
        yield mhakit.softmax(weights, backend="cuda")
        yield mhakit.weighted_sum(weights, VALUE, backend="cuda")
        yield mhakit.merge_attention((QUERY, weights[..., 0]), backend="cuda")[0]
        yield mhakit.combine(QUERY, "head_scale", SCALED, backend="cuda")

    whole = list(run())
    monkeypatch.setattr(launch, "LARGEST_GRID", 3)
    for stepped, at_once in zip(run(), whole, strict=True):
        np.testing.assert_array_equal(stepped, at_once)
