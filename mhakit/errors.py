"""Every error that mhakit raises, under one root.

Each also inherits the built-in error a NumPy user would catch. Messages read
``name must <rule>, got <value>`` and end with the way out where there is one.
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailable",
    "CheckpointError",
    "CombinationNotFound",
    "CompileError",
    "DTypeError",
    "KernelError",
    "MhakitError",
    "MhakitWarning",
    "MissingExtra",
    "MixingNotFound",
    "OutOfMemory",
    "ParameterError",
    "PluginError",
    "ScoreModNotFound",
    "ShapeError",
]


class MhakitError(Exception):
    """The root of all errors of this package."""


class ShapeError(MhakitError, ValueError):
    """An array has the wrong rank or a size that does not fit the others."""


class DTypeError(MhakitError, TypeError):
    """An argument is no array, or an array of a dtype that is not taken."""


class ParameterError(MhakitError, ValueError):
    """A keyword has a value outside its rule, or two keywords contradict each other."""


class CompileError(MhakitError, TypeError):
    """A ``score_mod`` is no function that can be compiled into the kernel."""


class CheckpointError(MhakitError, ValueError):
    """A checkpoint lacks a file or tensor, or is of another architecture."""


class MissingExtra(MhakitError, ImportError):
    """What was asked for needs an optional dependency that is not installed."""


class OutOfMemory(MhakitError, MemoryError):
    """There is no memory for an array that was asked for."""


class BackendUnavailable(MhakitError, ValueError):
    """The backend asked for cannot run here, or cannot run this."""


class KernelError(MhakitError, RuntimeError):
    """A kernel failed on the device where it ran."""


class PluginError(MhakitError, ValueError):
    """A plugin, or what it registered, breaks the rules of ``mhakit.plugin_api``."""


class CombinationNotFound(PluginError, LookupError):
    """No installed plugin offers a combination of that name."""


class ScoreModNotFound(PluginError, LookupError):
    """No installed plugin offers a score modification of that name."""


class MixingNotFound(PluginError, LookupError):
    """No installed plugin offers a mixing of that name."""


class MhakitWarning(UserWarning):
    """The one warning class: something was left out, and the message says what and why."""
