"""Kernels on disk: never an old one, never a damaged one, and none is no reason to fail."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.core.runtime import rtsys

from mhakit.backends import steps
from mhakit.backends.cpu import simd
from mhakit.errors import MhakitWarning, ParameterError

__all__ = ["cache_of", "folder", "source_stamp"]

_DIGEST = hashlib.sha256().digest_size

WAY_OUT = "set NUMBA_CACHE_DIR to a folder that can be written"


@cache
def source_stamp() -> str:
    """Return a digest of all that kernels inline, so that an edit anywhere recompiles them.

    Numba itself stamps the file of the kernel only: a changed intrinsic or helper in another
    file would go unnoticed and the old machine code would run.
    """
    digest = hashlib.sha256(f"{simd.VECTOR_BYTES}".encode())
    for path in (Path(steps.__file__), *sorted(Path(__file__).parent.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Damaged(Exception):
    """A file of the cache is not as it was written."""


class _CheckedFile(IndexDataCacheFile):
    """Numba's two files of a kernel, each ended by a digest: machine code is run as it lies."""

    def _dump(self, obj: Any) -> bytes:
        data = super()._dump(obj)
        return bytes(data + hashlib.sha256(data).digest())

    def _load_index(self) -> Any:
        try:
            with open(self._index_path, "rb") as file:
                pickle.load(file)  # the version, which Numba compares
                _check(file.read())
        except Exception:  # whatever a damaged pickle raises: as if there were no file
            return {}
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(Path(self._data_path(name)).read_bytes())
        return super()._load_data(name)


def _check(data: bytes) -> None:
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise _Damaged


class _StampedCache(FunctionCache):
    """Numba's cache on disk, its key widened by the sources and the form of the kernel."""

    def __init__(self, py_func: Callable[..., Any], form: str) -> None:
        super().__init__(py_func)
        self._form = form
        locator = self._impl.locator
        self._cache_file = _CheckedFile(
            self._cache_path, self._impl.filename_base, locator.get_source_stamp()
        )

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._form, source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load a kernel; what cannot be read is compiled again.

        Numba's own form first reads in all that compiling needs, most of what a process with a
        warm cache would wait for. Machine code needs the runtime's symbols alone.
        """
        rtsys.initialize(target_context)
        try:
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except (_Damaged, OSError):
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a kernel where that is possible."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _tell(str(error))


@cache  # once a reason
def _tell(reason: str) -> None:
    warnings.warn(
        f"the folder of compiled kernels must be writable, got {reason}; every process compiles "
        f"them again: {WAY_OUT}",
        MhakitWarning,
        stacklevel=2,
    )


def cache_of(py_func: Callable[..., Any], form: str) -> Any:
    """Return the cache of one form of a kernel, one that keeps nothing where no folder is."""
    try:
        return _StampedCache(py_func, form)
    except RuntimeError:  # Numba's, where no folder that it knows can be used
        _tell("none of that kind")
        return NullCache()


def folder() -> Path:
    """Return where compiled kernels lie; raise where that is not the folder asked for, or none."""
    asked = numba.config.CACHE_DIR
    try:
        found = Path(_StampedCache(folder, "folder").cache_path)
    except RuntimeError as error:
        raise ParameterError(
            f"the folder of compiled kernels must be writable, got {error}; {WAY_OUT}"
        ) from error
    if asked and Path(asked).resolve() not in found.resolve().parents:
        raise ParameterError(
            f"NUMBA_CACHE_DIR must be a folder that can be written, got {asked!r}; set it to one "
            f"that can, or unset it and kernels lie in {found}"
        )
    return found
