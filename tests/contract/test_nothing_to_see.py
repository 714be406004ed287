"""Line 2 of the contract: a target that sees nothing is 0, and empty sizes work."""

import numpy as np
import pytest

import mhakit
from material.contract import SIZES
from mhakit.api.attending import attention_and_weights
from mhakit.testing import Sizes, assert_within, budget, draw


@pytest.mark.parametrize("sinks", [None, [0.25, -1.5, 3.0, -np.inf]])
def test_2_a_target_that_sees_nothing_is_0(dtype, backend, sinks):
    query, key, value = draw(SIZES, dtype)
    mask = np.ones((SIZES.B, SIZES.H, SIZES.T, SIZES.S), bool)
    mask[0, :, 3] = False
    mask[1, 2] = False
    sinks = None if sinks is None else np.array(sinks)
    output, lse = mhakit.attention(
        query, key, value, mask=mask, sinks=sinks, return_lse=True, backend=backend
    )
    dead = ~mask.any(axis=-1)
    assert not output[dead].astype(float).any()
    assert np.isfinite(output.astype(float)).all()
    expected = -np.inf if sinks is None else sinks.astype(lse.dtype)[None, :, None]
    np.testing.assert_array_equal(lse[dead], np.broadcast_to(expected, lse.shape)[dead])
    weights = mhakit.attention_weights(query, key, mask=mask, sinks=sinks, backend=backend)
    assert not weights[dead].astype(float).any()
    assert not np.signbit(weights.astype(float)).any(), "no weight may read -0.0"
    keywords = {"mask": mask, "sinks": sinks, "backend": backend}
    output, same = attention_and_weights(query, key, value, **keywords)
    assert not output[dead].astype(float).any()
    np.testing.assert_array_equal(same, weights)
    names = {name: keywords[name] for name in ("mask", "sinks")}
    assert_within(output, budget("attention", query, key, value, **names)[0])


@pytest.mark.parametrize(
    "sizes", [(2, 4, 2, 0, 5, 8, 8), (2, 4, 2, 3, 0, 8, 8), (0, 4, 2, 3, 5, 8, 8)]
)
def test_2_empty_sizes_work(sizes, dtype, backend, form):
    B, H, _, T, S, _, E = sizes
    query, key, value = draw(Sizes(*sizes), dtype)
    output, lse = mhakit.attention(query, key, value, return_lse=True, backend=backend)
    assert output.shape == (B, H, T, E)
    assert not output.astype(float).any()
    assert (lse == -np.inf).all()
    assert mhakit.attention_scores(query, key, backend=backend).shape == (B, H, T, S)
    weights = mhakit.attention_weights(query, key, backend=backend)
    assert weights.shape == (B, H, T, S)
    assert mhakit.weighted_sum(weights, value, backend=backend).shape == (B, H, T, E)
    assert mhakit.merge_attention((output, lse), backend=backend)[0].shape == (B, H, T, E)
    output, weights = attention_and_weights(query, key, value, backend=backend)
    assert (output.shape, weights.shape) == ((B, H, T, E), (B, H, T, S))
    assert not output.astype(float).any()
