"""Backends that have gradients."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["cpu", "reference"])
def backend(request):
    """Each backend that has gradients."""
    return request.param
