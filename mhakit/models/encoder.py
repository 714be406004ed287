"""The smallest encoder that runs a BERT checkpoint: embed, then (attend, combine, feed forward)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import ParameterError
from mhakit.models.checkpoint import Config, Tensors, read_config, read_tensors
from mhakit.models.layers import EncoderLayer, LayerNorm
from mhakit.models.run import Run
from mhakit.models.sentence import Sentence, Tokenizer

__all__ = ["SAMPLE", "Encoder", "load"]

Floats = NDArray[np.float32]

SAMPLE = Path(__file__).parent / "sample"
"""The directory of the embedded sample."""


def load(path: str | Path | None = None) -> Encoder:
    """Load the encoder of a checkpoint directory.

    Parameters
    ----------
    path : str or Path, optional
        A directory with ``config.json``, ``model.safetensors`` and ``tokenizer.json`` of the
        BERT family; None is the embedded sample, all-MiniLM-L6-v2.

    Returns
    -------
    Encoder
        Its parameters in float32, whatever they are stored in.

    Raises
    ------
    CheckpointError
        Where a file or a tensor is missing, broken or of the wrong shape, or the checkpoint is
        of another architecture.
    MissingExtra
        Where the extra ``models`` is not installed.

    References
    ----------
    Devlin et al., "BERT", arXiv:1810.04805, section 3. The sample: Reimers and Gurevych,
    "Sentence-BERT", arXiv:1908.10084; Wang et al., "MiniLM", arXiv:2002.10957.

    Examples
    --------
    >>> from mhakit import models
    >>> models.load()
    Encoder(layers=6, heads=12, head_width=32, model_width=384)
    """
    directory = SAMPLE if path is None else Path(path)
    config = read_config(directory)
    tokenizer = Tokenizer(directory, config.vocabulary, config.positions)
    return Encoder(config, read_tensors(directory), tokenizer)


class Encoder:
    """A BERT encoder whose layers attend with `mhakit.MultiHeadAttention`.

    Use `load` to make one. Layer normalisation comes after each residual, positions are learned,
    the activation is the exact GELU.

    Parameters
    ----------
    config : Config
        Its sizes.
    tensors : Tensors
        Its parameters by their names in the checkpoint.
    tokenizer : Tokenizer
        What cuts sentences into tokens.

    Attributes
    ----------
    layers : tuple of EncoderLayer
        The layers, first to last; ``layers[i].attention`` is a `MultiHeadAttention`.
    """

    def __init__(self, config: Config, tensors: Tensors, tokenizer: Tokenizer) -> None:
        M = config.model_width
        self.config = config
        self._tokenizer = tokenizer
        self._words = tensors.take("embeddings.word_embeddings.weight", (config.vocabulary, M))
        positions = tensors.take("embeddings.position_embeddings.weight", (config.positions, M))
        types = tensors.take("embeddings.token_type_embeddings.weight", (config.token_types, M))
        self._places = positions + types[0]  # one sentence at a time: every token is of type 0
        self._norm = LayerNorm(tensors, "embeddings.LayerNorm", config)
        self.layers = tuple(
            EncoderLayer(tensors, f"encoder.layer.{layer}.", config)
            for layer in range(config.num_layers)
        )

    def __repr__(self) -> str:
        c = self.config
        return (
            f"Encoder(layers={c.num_layers}, heads={c.num_heads}, "
            f"head_width={c.head_width}, model_width={c.model_width})"
        )

    def tokenize(self, text: str) -> Sentence:
        """Cut a sentence into the model's tokens.

        Parameters
        ----------
        text : str
            The sentence.

        Returns
        -------
        Sentence
            Its tokens and their ids, the special tokens among them. Nothing is truncated.

        Raises
        ------
        ParameterError
            Where there is no word in it, or more tokens than the model has positions.

        References
        ----------
        Devlin et al., "BERT", arXiv:1810.04805, section 3 (WordPiece).

        Examples
        --------
        >>> from mhakit import models
        >>> models.load().tokenize("The cat sat.").tokens
        ('[CLS]', 'the', 'cat', 'sat', '.', '[SEP]')
        """
        return self._tokenizer(text)

    def run(self, sentences: str | Sentence | Iterable[str | Sentence]) -> Run:
        """Run sentences through every layer and keep what each layer did.

        Parameters
        ----------
        sentences : str, Sentence, or iterable of them
            One sentence, or B of any lengths; shorter ones are padded and the padding hidden.

        Returns
        -------
        Run
            Per layer the hidden states (B, T, M), heads (B, H, T, E), the combined result
            (B, T, M), and the weights (B, H, T, S) when asked for; float32.

        Raises
        ------
        ParameterError
            Where there is no sentence, or one has no word or is too long.

        References
        ----------
        Devlin et al., "BERT", arXiv:1810.04805, section 3; Vaswani et al., arXiv:1706.03762,
        section 3.1.

        Examples
        --------
        >>> from mhakit import models
        >>> run = models.load().run(["the cat sat on the mat", "hello"])
        >>> run.hidden_states.shape, run.layers[0].heads.shape
        ((2, 8, 384), (2, 12, 8, 32))
        """
        several = [sentences] if isinstance(sentences, str | Sentence) else sentences
        if not isinstance(several, Iterable):
            raise ParameterError(
                f"sentences must be a str, a Sentence or several of them, got {sentences!r}"
            )
        batch = tuple(
            sentence if isinstance(sentence, Sentence) else self.tokenize(sentence)
            for sentence in several
        )
        if not batch:
            raise ParameterError("sentences must be at least one sentence, got none")
        lengths = np.array([len(sentence) for sentence in batch], dtype=np.int64)
        states = self._embed(batch, int(lengths.max()))
        layers = []
        for layer in self.layers:
            layers.append(layer.run(states, lengths))
            states = layers[-1].output
        return Run(batch, tuple(layers))

    def sentence_vector(self, sentences: str | Sentence | Iterable[str | Sentence]) -> Floats:
        """Return one vector per sentence: the mean over its tokens, scaled to length 1.

        Parameters
        ----------
        sentences : str, Sentence, or iterable of them
            One sentence, or B of them.

        Returns
        -------
        ndarray of float32, shape (B, M), or (M,) for one sentence
            The dot product of two of them is their cosine.

        Raises
        ------
        ParameterError
            Where there is no sentence, or one has no word or is too long.

        References
        ----------
        Reimers and Gurevych, "Sentence-BERT", arXiv:1908.10084, section 3.

        Examples
        --------
        >>> from mhakit import models
        >>> cat, kitten, tax = models.load().sentence_vector(
        ...     ["A cat sleeps.", "A kitten naps.", "Taxes are due in April."]
        ... )
        >>> bool(cat @ kitten > 0.5 > cat @ tax)
        True
        """
        vectors = self.run(sentences).sentence_vectors()
        return vectors[0] if isinstance(sentences, str | Sentence) else vectors

    def _embed(self, batch: tuple[Sentence, ...], T: int) -> Floats:
        """Return the sum of word, position and type rows, normalised: (B, T, M)."""
        ids = np.zeros((len(batch), T), dtype=np.int64)  # padding is never seen: any row will do
        for row, sentence in zip(ids, batch, strict=True):
            row[: len(sentence)] = sentence.ids
        return self._norm(self._words[ids] + self._places[:T])
