import mhakit
import numpy as np
import pytest

from mhakit_peak import Peak

B, H, T, E = 2, 3, 5, 4
IDENTITY = {"weight": np.eye(E), "bias": np.zeros(E)}


@pytest.fixture
def heads():
    return np.random.default_rng(0).normal(size=(B, H, T, E))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_largest_magnitude_wins_and_keeps_its_sign(heads, backend):
    expected = np.take_along_axis(heads, np.abs(heads).argmax(axis=1)[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(mhakit.combine(heads, Peak, IDENTITY, backend=backend), expected)


def test_of_equally_large_heads_the_first_wins():
    heads = np.array([-1.0, 1.0, -1.0]).reshape(1, 3, 1, 1)
    result = mhakit.combine(heads, Peak, {"weight": np.eye(1), "bias": np.zeros(1)})
    assert result.item() == -1


def test_a_layer_uses_it():
    layer = mhakit.MultiHeadAttention(12, H, combine="peak", rng=0)
    x = np.random.default_rng(1).normal(size=(T, 12)).astype(np.float32)
    expected = mhakit.combine(
        layer.heads(x),
        "peak",
        {name: layer.parameters()[f"combine.{name}"] for name in ("weight", "bias")},
    )
    np.testing.assert_array_equal(layer(x), expected)
