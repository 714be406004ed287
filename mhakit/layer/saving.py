"""A layer in a file: what it is and what it learned, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from mhakit.errors import CheckpointError, ParameterError
from mhakit.layer.files import read_file, write_file
from mhakit.layer.learned import Combination, LearnedLayer
from mhakit.plugin_api import HeadCombination

__all__ = ["SavedLayer"]

Array = NDArray[Any]

AXES = {"query_weight": "(H, M, D)", "key_weight": "(G, M, D)", "value_weight": "(G, M, E)"}


class SavedLayer(LearnedLayer):
    """A layer that can be written to a file and read back."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all parameters to a file, by their names; it is replaced whole or not at all.

        Parameters
        ----------
        path : str or path
            Ends in ``.npz``, or in ``.safetensors`` where safetensors is installed (the extra
            ``mhakit[models]``).

        Raises
        ------
        ParameterError
            If it ends otherwise.
        MissingExtra
            If safetensors is needed and not installed.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from mhakit import MultiHeadAttention
        >>> layer = MultiHeadAttention(8, num_heads=2, combine="average", rng=0)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "layer.npz"
        ...     layer.save(path)
        ...     again = MultiHeadAttention.load(path)
        >>> again.combination.name
        'average'
        >>> bool((again.query_weight == layer.query_weight).all())
        True
        """
        record = {
            "combine": self.combination.name,
            "options": "default" if _is_default(self.combination) else "given",
            "dtype": self.dtype.name,
        }
        write_file(Path(path), self.parameters(), record)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, combine: Combination | None = None) -> Self:
        """Make a layer of a file that `save` wrote.

        Parameters
        ----------
        path : str or path
            The file.
        combine : str, type or HeadCombination, optional
            The combination whose parameters the file holds: needed where it was an object with
            options of its own, which the file does not hold, or is not installed.

        Returns
        -------
        MultiHeadAttention
            With the sizes, the dtype and all parameters of the one that was saved.

        Raises
        ------
        CheckpointError
            If the file cannot be read or is no such file, or a parameter is missing, unknown or
            of the wrong shape.
        ParameterError
            If the path ends otherwise, or ``combine`` is needed.
        PluginError
            If the combination is not installed.
        MissingExtra
            If the file needs a package that is not installed.

        Examples
        --------
        >>> from mhakit import MultiHeadAttention
        >>> MultiHeadAttention.load("layer.txt")
        Traceback (most recent call last):
            ...
        mhakit.errors.ParameterError: path must end in .npz or .safetensors, got 'layer.txt'
        """
        arrays, record = read_file(Path(path))
        for name, axes in AXES.items():
            if name not in arrays:
                raise CheckpointError(f"{path} must have {name} {axes}, got {', '.join(arrays)}")
            if arrays[name].ndim != 3:
                raise CheckpointError(
                    f"{name} in {path} must be {axes}, got shape {arrays[name].shape}"
                )
        if combine is None and record.get("options") != "default":
            raise ParameterError(
                f"combine must be given to read {path}, whose {record.get('combine')!r} had "
                "options of its own; pass combine=YourClass(option=…)"
            )
        H, M, D = arrays["query_weight"].shape
        layer = cls(
            M,
            H,
            num_kv_heads=arrays["key_weight"].shape[0],
            head_width=D,
            value_width=arrays["value_weight"].shape[2],
            bias="query_bias" in arrays,
            combine=record.get("combine", "") if combine is None else combine,
            dtype=arrays["query_weight"].dtype,
            rng=0,
        )
        expected = {name: array.shape for name, array in layer.parameters().items()}
        got = {name: array.shape for name, array in arrays.items()}
        if got != expected:
            name = next(n for n in (*expected, *got) if got.get(n) != expected.get(n))
            raise CheckpointError(
                f"{path} must have {name} of shape {expected.get(name)} for "
                f"combine={layer.combination.name!r}, got {got.get(name)}"
                if name in expected
                else f"{path} must have {', '.join(expected)} alone, got {name}"
            )
        layer.set_parameters(arrays)
        return layer


def _is_default(strategy: HeadCombination) -> bool:
    """Whether a strategy is what its class makes without options."""
    try:
        return bool(vars(strategy) == vars(type(strategy)()))
    except Exception:  # it cannot be made so, or holds what cannot be compared
        return False
