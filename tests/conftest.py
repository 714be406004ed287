"""What the tests share: dtypes by name, and both forms of every CPU kernel."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


@pytest.fixture(params=list(DTYPES))
def dtype(request):
    """Each dtype that attention takes."""
    return DTYPES[request.param]


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    """Each backend that runs on this machine."""
    return request.param


@pytest.fixture(params=["serial", "parallel"])
def form(request, monkeypatch):
    """Each compiled form of the CPU kernels, whatever the size of the problem."""
    from mhakit.backends.cpu import launch

    limit = 0 if request.param == "parallel" else float("inf")
    monkeypatch.setattr(launch, "SERIAL_BELOW", limit)
    return request.param
