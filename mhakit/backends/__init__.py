"""Choose the backend that computes a call: by name, or by the kind of array that was given.

Every backend is a module with the same verbs: ``attend``, ``score``, ``weigh``, ``normalize``,
``weigh_values``, ``merge``, ``combine_heads``, ``combine_heads_vjp``, ``project`` and
``describe``. None imports another. ``cuda`` has no gradients and no ``project`` yet, and also
``empty``, for results in a device's memory; ``cpu`` has also ``prepare``, for calls that repeat.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from mhakit.device import DeviceArray
from mhakit.errors import BackendUnavailable, ParameterError

__all__ = ["BACKENDS", "availability", "select"]

BACKENDS = ("reference", "cpu", "cuda")


def select(name: str | None, array: object = None, *, gradients: bool = False) -> ModuleType:
    """Return the backend of that name; None is by where ``array`` lies: ``cuda`` or ``cpu``.

    With ``gradients`` it must be one that has them.
    """
    if isinstance(array, DeviceArray):
        if name in ("reference", "cpu"):
            raise BackendUnavailable(
                f"backend {name!r} must be given arrays in host memory, got arrays on a CUDA "
                "device; use backend='cuda' (or None), or copy them to the host"
            )
        name = "cuda" if name is None else name
    if name is None or name == "cpu":
        return _load("cpu")
    if not isinstance(name, str) or name not in BACKENDS:
        known = ", ".join(repr(known) for known in BACKENDS)
        raise ParameterError(f"backend must be None or one of {known}, got {name!r}")
    if name == "cuda" and gradients:
        raise BackendUnavailable(
            "backend 'cuda' must not be asked for gradients, for which it has no kernels in this "
            "version; use backend='cpu' with arrays in host memory"
        )
    return _load_cuda() if name == "cuda" else _load(name)


@cache
def _load(name: str) -> ModuleType:
    return import_module(f"mhakit.backends.{name}")


def _load_cuda() -> ModuleType:
    """Import the kernels for CUDA, or say what is missing."""
    if find_spec("numba_cuda") is None:
        raise _no_cuda(
            "numba-cuda, which is not installed",
            "pip install 'mhakit[cuda]' (or 'mhakit[cuda12]' where the driver is of CUDA 12)",
        )
    try:
        module = _load("cuda")
    except ImportError as error:
        raise _no_cuda(
            f"numba-cuda, which cannot be imported ({error})", "pip install 'mhakit[cuda]'"
        ) from error
    missing = module.why_absent()
    if missing is not None:
        raise _no_cuda(f"a CUDA device, got {missing}", "run `nvidia-smi` to see what there is")
    return module


def _no_cuda(rule: str, way_out: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"backend 'cuda' must have {rule}; {way_out}, "
        "or use backend='cpu' (or None) with NumPy arrays"
    )


def availability() -> dict[str, str | None]:
    """Return for each backend None where it can run, or else the reason why it cannot."""
    reasons: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            select(name)
        except (BackendUnavailable, ImportError) as error:
            reasons[name] = str(error)
        else:
            reasons[name] = None
    return reasons
