"""Who asks for a device where there is none is told what is missing and the way out."""

import pytest

import mhakit
from material.device_arrays import KEY, QUERY, VALUE, Held
from mhakit import backends
from mhakit.errors import BackendUnavailable


def test_a_machine_without_numba_cuda_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    message = r"backend 'cuda' must have numba-cuda, which is not installed; pip install 'mhakit\[cuda\]' \(or 'mhakit\[cuda12\]' .* or use backend='cpu'"
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.attention(Held(QUERY), Held(KEY), Held(VALUE))


def test_a_numba_cuda_that_cannot_be_imported_is_named(monkeypatch):
    def broken(name):
        raise ImportError("no cuda-bindings")

    monkeypatch.setattr(backends, "_load", broken)
    with pytest.raises(BackendUnavailable, match=r"cannot be imported \(no cuda-bindings\)"):
        mhakit.softmax(QUERY, backend="cuda")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("libcuda.so is missing\nmore"), r"no CUDA driver that works \(libcuda.so is missing\)"),
        (None, "a CUDA driver and no CUDA device"),
    ],
)  # fmt: skip
def test_a_machine_without_a_driver_or_a_device_is_told_which(error, told, monkeypatch):
    from mhakit.backends.cuda import presence

    monkeypatch.setattr(presence.cuda, "is_available", lambda: False)
    monkeypatch.setattr(presence.cuda, "cuda_error", lambda: error)
    message = rf"backend 'cuda' must have a CUDA device, got {told}; run `nvidia-smi` .* or use backend='cpu'"
    with pytest.raises(BackendUnavailable, match=message):
        mhakit.attention(QUERY, KEY, VALUE, backend="cuda")
    assert told.split()[0] in backends.availability()["cuda"]


def test_numba_cuda_is_imported_by_nobody_who_does_not_ask(run_fresh):
    asked = "import sys, numpy as np, mhakit; mhakit.softmax(np.ones(3)); "
    assert run_fresh(asked + "print('numba.cuda.np' in sys.modules)") == "False"


def test_a_numpy_without_row_stack_gets_none(run_fresh):
    code = (
        "import warnings; warnings.simplefilter('ignore'); import numpy as np; "
        "np.__dict__.pop('row_stack', None); import mhakit.backends.cuda; "
        "print('row_stack' in vars(np))"
    )
    assert run_fresh(code) == "False"
