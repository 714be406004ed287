"""What the check does on a GPU, done in the simulator: the launches by twins, the clock by hand."""

import numpy as np
import pytest


@pytest.fixture
def check(device, tiles, monkeypatch):
    """The check's verifying, whose launches of decoding are done by twins."""
    from mhakit.backends.cuda import tiles as package
    from mhakit.backends.cuda.check import device as checking
    from mhakit.backends.cuda.tiles.segments import Decoding

    def decode(*given, stream):
        package.decode(*given, stream=stream)

    monkeypatch.setitem(checking._LAUNCHES, Decoding, decode)
    return checking


def variant():
    from mhakit.backends.cuda.tiles.segments import Decoding

    return Decoding("float16", 32, 32, 16, 4)


def test_a_right_variant_is_verified(check, tiles):
    check.verify(variant(), np.random.default_rng())
    assert len(tiles) == 2, "one run after another, to compare their bits"


def test_a_wrong_variant_is_found(check, monkeypatch):
    from mhakit.backends.cuda.tiles.segments import Decoding

    monkeypatch.setitem(check._LAUNCHES, Decoding, lambda *given, stream: None)
    with pytest.raises(AssertionError, match="decoding-float16-D32-16x64-4w: output"):
        check.verify(variant(), np.random.default_rng())


def test_a_variant_that_does_not_repeat_itself_is_found(check, monkeypatch):
    get, fetched = check.Held.get, []

    def get_another(self, which, like):
        fetched.append(which)
        array = get(self, which, like)
        return np.nextafter(array, np.inf, dtype=array.dtype) if len(fetched) > 2 else array

    monkeypatch.setattr(check.Held, "get", get_another)
    with pytest.raises(AssertionError, match="two runs gave different bits"):
        check.verify(variant(), np.random.default_rng())


def test_the_rows_of_what_memory_bounds_say_how_fast_against_a_copy(check, tiles, monkeypatch):
    from mhakit.backends.cuda.check import bandwidth

    def milliseconds(run, repeat, before=lambda: None):
        before()
        run()
        return 0.001 if before is milliseconds.__defaults__[0] else 0.004

    monkeypatch.setattr(bandwidth, "milliseconds", milliseconds)
    monkeypatch.setattr(bandwidth, "_COPIED", 1000)
    monkeypatch.setattr(bandwidth, "_DECODED", ((1, 4, 2, 300, 32),))
    monkeypatch.setattr(bandwidth, "_COMBINED", (2, 4, 3, 8))
    monkeypatch.setattr(bandwidth, "_torch_decoding", lambda *given: None)
    monkeypatch.setattr(bandwidth, "decode", check._LAUNCHES[type(variant())])
    rows = bandwidth.time_bandwidth("float16")
    copied, decoded, *combined = rows
    assert copied == {"what": "copy", "copy_gbs": 2.0}
    assert (decoded["what"], decoded["dtype"]) == ("decoding 1,4/2,1,300,32", "float16")
    speed = 2 * 2 * 300 * 32 * 2 / 0.004 / 1e6
    rates = {"mhakit_ms": 0.004, "mhakit_gbs": speed, "mhakit_of_copy": speed / 2}
    assert {name: decoded[name] for name in rates} == pytest.approx(rates)
    ((problem, *_),) = tiles
    assert problem.query.shape == (1, 4, 1, 32)
    heads = 2 * 4 * 3 * 8 * 2
    moved = {"sum": heads * 5 // 4, "concatenation": heads * 2}
    gate = 4 * 2 * 4 * 3
    moved |= {f"gated {name}": bytes_ + gate for name, bytes_ in moved.items()}
    for row in combined:
        name = row["what"].removeprefix("combination by ")
        assert row["mhakit_gbs"] == pytest.approx(moved.pop(name) / 0.004 / 1e6)
    assert not moved
