"""What a layer is and what it learned: sizes, parameters by name, the combination in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mhakit.api.parameters import (
    Rng,
    as_generator,
    ask_parameters,
    check_parameters,
    initialize,
    require_mapping,
)
from mhakit.errors import ParameterError
from mhakit.layer.projections import Projections, as_learned
from mhakit.layer.sizes import as_sizes
from mhakit.layer.torch_state import read_torch_state
from mhakit.plugin_api import HeadCombination, HeadShape
from mhakit.registry import resolve
from mhakit.validation import as_dtype, as_size

__all__ = ["COMBINE", "Combination", "LearnedLayer"]

Array = NDArray[Any]
Combination = str | type[HeadCombination] | HeadCombination

COMBINE = "combine."
"""What the names of the combination's parameters begin with, among the layer's."""


def _learned(name: str, shape: str) -> Any:
    """Return the property that reads a parameter as a view and sets it by value."""

    def read(layer: LearnedLayer) -> Array | None:
        return layer.parameters().get(name)

    def write(layer: LearnedLayer, value: ArrayLike) -> None:
        layer.set_parameters({name: value})

    return property(read, write, doc=f"{shape}, a read-only view; set it to write its values.")


class LearnedLayer:
    """The projections and the combination of a layer, and their parameters by name."""

    query_weight = _learned("query_weight", "(H, M, D)")
    key_weight = _learned("key_weight", "(G, M, D)")
    value_weight = _learned("value_weight", "(G, M, E)")
    query_bias = _learned("query_bias", "(H, D), or None")
    key_bias = _learned("key_bias", "(G, D), or None")
    value_bias = _learned("value_bias", "(G, E), or None")

    def __init__(
        self,
        model_width: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_width: int | None = None,
        value_width: int | None = None,
        bias: bool = True,
        combine: Combination = "concat_project",
        dtype: DTypeLike = np.float32,
        rng: Rng = None,
    ) -> None:
        sizes = as_sizes(model_width, num_heads, num_kv_heads, head_width, value_width)
        if not isinstance(bias, bool | np.bool_):
            raise ParameterError(f"bias must be True or False, got {bias!r}")
        generator = as_generator(rng)
        self._projections = Projections.random(
            sizes, bias=bool(bias), dtype=as_dtype(dtype), rng=generator
        )
        self._combined: dict[str, Array] = {}
        self.combine_with(combine, rng=generator)

    @classmethod
    def from_torch_state_dict(
        cls,
        state: Mapping[str, Any],
        num_heads: int,
        *,
        combine: Combination = "concat_project",
        dtype: DTypeLike = np.float32,
        rng: Rng = None,
    ) -> Self:
        """Make a layer of the parameters of a ``torch.nn.MultiheadAttention``.

        Parameters
        ----------
        state : mapping of str to array
            Its ``state_dict()``: ``in_proj_weight`` (3M, M) and ``out_proj.weight`` (M, M), and
            ``in_proj_bias`` (3M,) and ``out_proj.bias`` (M,) where it has biases.
        num_heads : int
            H, which the state does not tell.
        combine : str, type or HeadCombination
            A combination with a ``weight`` (H*E, M), and a ``bias`` (M,) where there are biases.
        dtype : dtype
            The layer's dtype.
        rng : int or numpy.random.Generator, optional
            For parameters of the combination that the state does not hold.

        Returns
        -------
        MultiHeadAttention
            Its output equals torch's to rounding.

        Raises
        ------
        ParameterError
            If a key is missing, unknown, or cannot be carried over.
        ShapeError
            If an array has the wrong shape.

        Examples
        --------
        >>> import numpy as np
        >>> from mhakit import MultiHeadAttention
        >>> state = {"in_proj_weight": np.ones((24, 8)), "out_proj.weight": np.ones((8, 8))}
        >>> MultiHeadAttention.from_torch_state_dict(state, num_heads=2).query_weight.shape
        (2, 8, 4)
        """
        H = as_size(num_heads, "num_heads")
        M, parameters = read_torch_state(state, H)
        layer = cls(M, H, bias="query_bias" in parameters, combine=combine, dtype=dtype, rng=rng)
        known = layer.parameters()
        for name in (key for key in parameters if key.startswith(COMBINE)):
            if name not in known or known[name].shape != parameters[name].shape:
                raise ParameterError(
                    f"combine must have a parameter {name.removeprefix(COMBINE)!r} of shape "
                    f"{parameters[name].shape} to carry torch's over, got "
                    f"{layer.combination.name!r}, which has none; "
                    "read it as 'concat_project' and change it by combine_with"
                )
        layer.set_parameters(parameters)
        return layer

    @property
    def _shape(self) -> HeadShape:
        return HeadShape(self.num_heads, self.value_width, self.model_width)

    # ---- what it is -----------------------------------------------------------------------

    @property
    def model_width(self) -> int:
        """M."""
        return self._projections.model_width

    @property
    def num_heads(self) -> int:
        """H."""
        return self._projections.num_heads

    @property
    def num_kv_heads(self) -> int:
        """G."""
        return self._projections.num_kv_heads

    @property
    def head_width(self) -> int:
        """D."""
        return self._projections.head_width

    @property
    def value_width(self) -> int:
        """E."""
        return self._projections.value_width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of parameters, input and output."""
        return self._projections.weight.dtype

    @property
    def combination(self) -> HeadCombination:
        """How the heads are combined."""
        return self._strategy

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(model_width={self.model_width}, num_heads={self.num_heads}, "
            f"num_kv_heads={self.num_kv_heads}, head_width={self.head_width}, "
            f"value_width={self.value_width}, bias={self._projections.bias is not None}, "
            f"combine={self._strategy.name!r}, dtype={self.dtype.name})"
        )

    # ---- what it learned ------------------------------------------------------------------

    def parameters(self) -> dict[str, Array]:
        """Return all parameters by name, as read-only views.

        Returns
        -------
        dict of str to ndarray
            ``query_weight`` (H, M, D), ``key_weight`` (G, M, D), ``value_weight`` (G, M, E), with
            biases ``query_bias`` (H, D), ``key_bias`` (G, D), ``value_bias`` (G, E), and the
            combination's own as ``combine.weight``, ``combine.bias``, … A view shows what was set
            when it was taken.

        Examples
        --------
        >>> from mhakit import MultiHeadAttention
        >>> list(MultiHeadAttention(8, 2, bias=False, rng=0).parameters())
        ['query_weight', 'key_weight', 'value_weight', 'combine.weight', 'combine.bias']
        """
        parameters = self._projections.views()
        for name, array in self._combined.items():
            view = array.view()
            view.flags.writeable = False
            parameters[COMBINE + name] = view
        return parameters

    def set_parameters(self, values: Mapping[str, ArrayLike]) -> None:
        """Set some parameters, all of those given or, where one does not fit, none.

        Parameters
        ----------
        values : mapping of str to ndarray
            By the names and in the shapes of `parameters`, of any float dtype; copied.

        Raises
        ------
        ParameterError
            If a name is unknown to this layer.
        ShapeError
            If an array has the wrong shape.
        DTypeError
            If one is no array of floats.

        Examples
        --------
        >>> import numpy as np
        >>> from mhakit import MultiHeadAttention
        >>> layer = MultiHeadAttention(8, num_heads=2, rng=0)
        >>> layer.set_parameters({"query_bias": np.ones((2, 4))})
        >>> layer.query_bias[0]
        array([1., 1., 1., 1.], dtype=float32)
        """
        learned = as_learned(values, self.parameters(), self.dtype)
        combined = {n.removeprefix(COMBINE): v for n, v in learned.items() if n.startswith(COMBINE)}
        projected = {n: v for n, v in learned.items() if not n.startswith(COMBINE)}
        projections = self._projections.with_values(projected) if projected else self._projections
        self._projections, self._combined = projections, {**self._combined, **combined}

    def combine_with(
        self,
        combination: Combination,
        *,
        parameters: Mapping[str, ArrayLike] | None = None,
        rng: Rng = None,
    ) -> tuple[str, ...]:
        """Change how the heads are combined; the heads stay as they are.

        Parameters
        ----------
        combination : str, type or HeadCombination
            An installed name, a class, or an object of one.
        parameters : mapping of str to ndarray, optional
            Values for its parameters, by the layer's names (``combine.weight``, ``combine.bias``).
        rng : int or numpy.random.Generator, optional
            Where the values of the others come from; None is fresh entropy.

        Returns
        -------
        tuple of str
            The layer's names of the parameters that were initialised: those not given, for which
            the combination before had none of the same name and shape to keep. What was learned for
            one combination need not suit another: averaged heads that were trained to be
            concatenated say little.

        Raises
        ------
        PluginError
            If the combination is not installed or breaks its rules; the layer stays as it was, as
            with every error.
        ParameterError, ShapeError, DTypeError
            If a parameter is unknown or does not fit, or these sizes cannot be combined so.

        Examples
        --------
        >>> from mhakit import MultiHeadAttention
        >>> layer = MultiHeadAttention(8, num_heads=2, rng=0)
        >>> layer.combine_with("average", rng=0)
        ('combine.weight',)
        """
        if parameters is not None:
            require_mapping(parameters)
        strategy = resolve(combination)
        shape = self._shape
        specs = ask_parameters(strategy, shape)
        values: dict[str, Any] = {}
        for name, spec in specs.items():
            kept = self._combined.get(name)
            if kept is not None and kept.shape == tuple(spec.shape):
                values[name] = kept
        for name, value in (parameters or {}).items():
            if not isinstance(name, str) or not name.startswith(COMBINE):
                names = ", ".join(COMBINE + own for own in specs) or "none"
                raise ParameterError(f"parameters of this layer must be: {names}, got {name!r}")
            values[name.removeprefix(COMBINE)] = value
        generator = as_generator(rng)
        fresh = tuple(name for name in specs if name not in values)
        for name in fresh:
            values[name] = initialize(strategy, name, specs[name], generator)
        checked = check_parameters(strategy, shape, values)
        self._combined = {name: array.astype(self.dtype) for name, array in checked.items()}
        self._strategy = strategy
        return tuple(COMBINE + name for name in fresh)
