"""A copy of a layer, and what a layer says of itself."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from material.arrays import draw
from material.layers import B, D, E, H, M, T, grouped


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
