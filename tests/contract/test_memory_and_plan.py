"""Lines 4 and 5 of the contract: what is allocated, and that ``explain`` names what runs."""

import tracemalloc

import numpy as np
import pytest

import mhakit
from mhakit.testing import GRID, Sizes, draw


@pytest.mark.parametrize("T", [256, 1024])
def test_4_attention_allocates_nothing_of_size_T_by_S(T):
    query, key, value = draw(Sizes(1, 2, 2, T, T, 16, 16), np.float32)
    out = np.empty_like(query)
    for _ in range(2):
        tracemalloc.start()
        mhakit.attention(query, key, value, causal=True, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    plan = mhakit.explain(query, key, value, causal=True)
    lse = 4 * 2 * T
    assert peak < lse + plan.scratch_bytes + 20_000, "more than an lse, scratch and small change"
    assert plan.scratch_bytes < 4 * 256 * 256


def test_4_the_scratch_of_the_kernel_does_not_grow_with_T():
    scratch = {
        T: mhakit.explain(*draw(Sizes(1, 2, 2, T, T, 16, 16), np.float32)).scratch_bytes
        for T in (512, 2048)
    }
    assert scratch[512] == scratch[2048]


def test_4_weights_of_a_few_rows_take_the_memory_of_those_rows():
    query, key, _ = draw(Sizes(1, 4, 4, 3000, 3000, 8, 8), np.float16)
    chosen = {"heads": [1], "queries": [0, 2999]}
    mhakit.attention_weights(query, key, **chosen)
    tracemalloc.start()
    mhakit.attention_weights(query, key, **chosen)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 2 * 3000 + 20_000


def test_5_explain_names_the_backend_that_runs(backend):
    query, key, value = draw(GRID["no two sizes equal"], np.float32)
    plan = mhakit.explain(query, key, value, backend=backend)
    assert plan.backend == backend
    assert plan.kernel.startswith(backend)
    if backend == "cpu":
        assert mhakit.explain(query, key, value) == plan
