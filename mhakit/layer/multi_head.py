"""The layer that people build models of: project, attend, combine."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, Unpack, overload

from numpy.typing import ArrayLike, NDArray

from mhakit.api.arguments import Causal, Integers, ScoreMod, Window
from mhakit.api.asking import ask
from mhakit.api.attending import attention, attention_and_weights
from mhakit.api.combining import combine_by
from mhakit.api.parameters import Rng
from mhakit.errors import ShapeError
from mhakit.layer.projections import as_input, as_source
from mhakit.layer.saving import SavedLayer
from mhakit.validation import as_float_array

__all__ = ["AttentionKeywords", "MultiHeadAttention"]

Array = NDArray[Any]


class AttentionKeywords(TypedDict, total=False):
    """The keywords of `mhakit.attention` that a layer passes on."""

    mask: ArrayLike | None
    bias: ArrayLike | None
    causal: Causal
    window: Window
    query_offset: Integers | None
    key_lengths: Integers | None
    scale: float | None
    softcap: float | None
    sinks: ArrayLike | None
    score_mod: ScoreMod
    score_args: tuple[Any, ...]
    backend: str | None


class MultiHeadAttention(SavedLayer):
    """Multi-head attention with learned weights: project, attend, combine the heads.

    Parameters
    ----------
    model_width : int
        M, the width of the layer's input and output.
    num_heads : int
        H, the number of query heads.
    num_kv_heads : int, optional
        G, the number of key/value heads, a divisor of H; H if not given.
    head_width : int, optional
        D, the width of a query and a key; M / H if not given.
    value_width : int, optional
        E, the width of a value; D if not given.
    bias : bool
        Whether the projections to query, key and value add a bias. What the combination adds is
        the combination's own.
    combine : str, type or HeadCombination
        How the heads are combined: an installed name, a class, or an object of one.
    dtype : dtype
        float64, float32, float16 or bfloat16: of the parameters, the input and the output. 16-bit
        projections are computed in float32 and rounded once.
    rng : int or numpy.random.Generator, optional
        Where the initial parameters come from; None is fresh entropy.

    Raises
    ------
    ParameterError
        If a size is no positive int, or the sizes do not divide.
    DTypeError
        If ``dtype`` is none of the four.
    PluginError
        If the combination is not installed or breaks its rules.

    Notes
    -----
    Head h has weights of its own: ``query_weight[h]`` (M, D), and ``key_weight[g]`` (M, D) and
    ``value_weight[g]`` (M, E) with g = h // (H // G). All are views of one matrix, so that
    self-attention projects with one product. It starts uniform within sqrt(6 / (rows + columns))
    of 0, which is sqrt(6 / 4M) where D = E = M / H and G = H; biases start at 0, and the
    combination's parameters as it says (``concat_project``: within 1/sqrt(H*E)). This is how
    ``torch.nn.MultiheadAttention`` starts.

    A layer can be copied and pickled; copies do not see what is set on one another.

    References
    ----------
    Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 3.2.2; Ainslie et al.,
    GQA, arXiv:2305.13245 (fewer key/value heads).

    Examples
    --------
    >>> import numpy as np
    >>> layer = MultiHeadAttention(16, num_heads=4, rng=0)
    >>> x = np.ones((2, 5, 16), np.float32)
    >>> layer.heads(x).shape, layer(x).shape
    ((2, 4, 5, 4), (2, 5, 16))
    >>> layer.combine_with("average", rng=0)
    ('combine.weight',)
    >>> layer(x).shape
    (2, 5, 16)
    """

    def project(self, x: ArrayLike, source: ArrayLike | None = None) -> tuple[Array, Array, Array]:
        """Project the input with each head's own weights.

        Parameters
        ----------
        x : ndarray, shape (B, T, M) or (T, M)
            The input, in the layer's dtype.
        source : ndarray, shape (B, S, M) or (S, M), optional
            What key and value are of; x itself if not given.

        Returns
        -------
        query : ndarray, shape (B, H, T, D)
        key : ndarray, shape (B, G, S, D)
        value : ndarray, shape (B, G, S, E)
            Views of one product, without B where x has none.

        Raises
        ------
        ShapeError
            If ``x`` or ``source`` has the wrong rank or width, or another B.
        DTypeError
            If one is not of the layer's dtype.

        Examples
        --------
        >>> import numpy as np
        >>> layer = MultiHeadAttention(8, num_heads=4, num_kv_heads=2, rng=0)
        >>> [part.shape for part in layer.project(np.ones((1, 3, 8), np.float32))]
        [(1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)]
        """
        query, key, value = self._project(x, source, None)
        return query.swapaxes(-2, -3), key.swapaxes(-2, -3), value.swapaxes(-2, -3)

    def heads(
        self, x: ArrayLike, source: ArrayLike | None = None, **keywords: Unpack[AttentionKeywords]
    ) -> Array:
        """Return each head's output Z0, Z1, …: one vector per word and head.

        Parameters
        ----------
        x, source
            As in `project`.
        **keywords
            mask, bias, causal, window, query_offset, key_lengths, scale, softcap, sinks,
            score_mod, score_args, backend: as in `mhakit.attention`.

        Returns
        -------
        ndarray, shape (B, H, T, E) or (H, T, E)
            A view of (B, T, H, E), so that concatenating the heads copies nothing.

        Raises
        ------
        ShapeError, DTypeError, ParameterError, CompileError, BackendUnavailable
            As `project` and `mhakit.attention` raise them.

        Examples
        --------
        >>> import numpy as np
        >>> MultiHeadAttention(8, num_heads=4, rng=0).heads(np.ones((3, 8), np.float32)).shape
        (4, 3, 2)
        """
        return self._attend(x, source, keywords, False)[0]

    def combine(
        self,
        heads: ArrayLike,
        hidden_states: ArrayLike | None = None,
        *,
        training: bool = False,
        rng: Rng = None,
        backend: str | None = None,
    ) -> Array:
        """Combine the heads' outputs into one vector per word, with this layer's parameters.

        Parameters
        ----------
        heads : ndarray, shape (B, H, T, E) or (H, T, E)
            What `heads` returned, changed or not.
        hidden_states : ndarray, shape (B, T, M) or (T, M), optional
            The layer's input, for combinations that read it.
        training, rng, backend
            As in `mhakit.combine`.

        Returns
        -------
        ndarray, shape (B, T, M) or (T, M)
            In the dtype of ``heads``.

        Raises
        ------
        ShapeError, DTypeError, ParameterError, PluginError, BackendUnavailable
            As `mhakit.combine` raises them.

        Examples
        --------
        >>> import numpy as np
        >>> layer = MultiHeadAttention(8, num_heads=4, rng=0)
        >>> z = layer.heads(np.ones((3, 8), np.float32))
        >>> layer.combine(z).shape
        (3, 8)
        """
        z = as_float_array(heads, "heads")
        H, E, M = self.num_heads, self.value_width, self.model_width
        if z.ndim not in (3, 4) or z.shape[-3] != H or z.shape[-1] != E:
            raise ShapeError(
                f"heads must be (B, H, T, E) or (H, T, E) with H={H} and E={E}, got shape {z.shape}"
            )
        hidden = None
        if hidden_states is not None:
            hidden = as_float_array(hidden_states, "hidden_states")
            if hidden.shape != (*z.shape[:-3], z.shape[-2], M):
                letters = "(B, T, M)" if z.ndim == 4 else "(T, M)"
                raise ShapeError(
                    f"hidden_states must be {letters} = {(*z.shape[:-3], z.shape[-2], M)} "
                    f"as heads is, got shape {hidden.shape}"
                )
        batched = z.ndim == 4
        question = ask(
            self._strategy,
            z if batched else z[None],
            self._combined,
            model_width=M,
            hidden_states=hidden if hidden is None or batched else hidden[None],
            training=training,
            rng=rng,
        )
        output = combine_by(question, backend)
        return output if batched else output[0]

    @overload
    def __call__(
        self,
        x: ArrayLike,
        source: ArrayLike | None = ...,
        *,
        training: bool = ...,
        rng: Rng = ...,
        return_weights: Literal[False] = ...,
        **keywords: Unpack[AttentionKeywords],
    ) -> Array: ...

    @overload
    def __call__(
        self,
        x: ArrayLike,
        source: ArrayLike | None = ...,
        *,
        training: bool = ...,
        rng: Rng = ...,
        return_weights: Literal[True],
        **keywords: Unpack[AttentionKeywords],
    ) -> tuple[Array, Array]: ...

    def __call__(
        self,
        x: ArrayLike,
        source: ArrayLike | None = None,
        *,
        training: bool = False,
        rng: Rng = None,
        return_weights: bool = False,
        **keywords: Unpack[AttentionKeywords],
    ) -> Array | tuple[Array, Array]:
        """Project, attend, combine: one vector per word.

        Parameters
        ----------
        x : ndarray, shape (B, T, M) or (T, M)
            The input, in the layer's dtype.
        source : ndarray, shape (B, S, M) or (S, M), optional
            What is attended to; x itself if not given.
        training, rng
            As in `mhakit.combine`.
        return_weights : bool
            Whether to return what each target looks at, too.
        **keywords
            mask, bias, causal, window, query_offset, key_lengths, scale, softcap, sinks,
            score_mod, score_args, backend: as in `mhakit.attention`.

        Returns
        -------
        output : ndarray, shape (B, T, M) or (T, M)
        weights : ndarray, shape (B, H, T, S) or (H, T, S)
            Where asked for.

        Raises
        ------
        ShapeError, DTypeError, ParameterError, CompileError, PluginError, BackendUnavailable
            As `project`, `mhakit.attention` and `mhakit.combine` raise them.

        Examples
        --------
        >>> import numpy as np
        >>> layer = MultiHeadAttention(8, num_heads=2, rng=0)
        >>> output, weights = layer(np.ones((3, 8), np.float32), causal=True, return_weights=True)
        >>> weights[0, 0]
        array([1., 0., 0.], dtype=float32)
        """
        z, weights = self._attend(x, source, keywords, return_weights)
        output = self.combine(
            z,
            as_float_array(x, "x"),
            training=training,
            rng=rng,
            backend=keywords.get("backend"),
        )
        return output if weights is None else (output, weights)

    def _project(
        self, x: ArrayLike, source: ArrayLike | None, backend: str | None
    ) -> tuple[Array, Array, Array]:
        words = as_input(x, "x", self.model_width, self.dtype)
        others = None if source is None else as_source(source, words, self.dtype)
        return self._projections.project(words, others, backend)

    def _attend(
        self,
        x: ArrayLike,
        source: ArrayLike | None,
        keywords: AttentionKeywords,
        return_weights: bool,
    ) -> tuple[Array, Array | None]:
        """Return the heads' outputs (B, H, T, E) and, where asked for, the weights (B, H, T, S)."""
        unknown = sorted(keywords.keys() - AttentionKeywords.__annotations__.keys())
        if unknown:
            raise TypeError(f"a layer takes no keyword {unknown[0]!r}")
        query, key, value = self._project(x, source, keywords.get("backend"))
        weights = None
        if return_weights:
            z, weights = attention_and_weights(query, key, value, layout="BTHD", **keywords)
        else:
            z = attention(query, key, value, layout="BTHD", **keywords)
        return z.swapaxes(-2, -3), weights
