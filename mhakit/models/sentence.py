"""From a sentence to token ids, by the checkpoint's own ``tokenizer.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhakit.errors import CheckpointError, ParameterError
from mhakit.models.checkpoint import missing_extra

__all__ = ["Sentence", "Tokenizer"]


@dataclass(frozen=True, slots=True, eq=False)
class Sentence:
    """One sentence, cut into tokens.

    Parameters
    ----------
    text : str
        The sentence as it was given.
    tokens : tuple of str
        Its T tokens, the special ones such as ``[CLS]`` and ``[SEP]`` among them; a piece of a
        word that continues it begins with ``##``.
    ids : ndarray of int64, shape (T,)
        Their rows in the model's word table.
    special : ndarray of bool, shape (T,)
        True where a token is the tokenizer's own and stands for no part of the text.
    """

    text: str
    tokens: tuple[str, ...]
    ids: NDArray[np.int64]
    special: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return T, the number of tokens."""
        return len(self.tokens)


class Tokenizer:
    """The tokenizer of one checkpoint, without its own truncation and padding.

    Parameters
    ----------
    directory : Path
        Where ``tokenizer.json`` is.
    vocabulary : int
        Rows of the word table; every id must be below it.
    positions : int
        The most tokens a sentence may have.
    """

    def __init__(self, directory: Path, vocabulary: int, positions: int) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise missing_extra(error) from error
        path = directory / "tokenizer.json"
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{path} must be a tokenizer, got: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._positions = positions
        last = max(self._tokenizer.get_vocab().values(), default=0)
        if last >= vocabulary:
            raise CheckpointError(
                f"{path} must have ids below vocab_size={vocabulary} of config.json, got {last}"
            )

    def __call__(self, text: str) -> Sentence:
        """Cut a sentence into tokens; see `mhakit.models.Encoder.tokenize`."""
        if not isinstance(text, str):
            raise ParameterError(f"sentence must be a str, got {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ParameterError(
                f"sentence must be text that UTF-8 can write, got {text!r}"
            ) from error
        encoding = self._tokenizer.encode(text)
        special = np.array(encoding.special_tokens_mask, dtype=bool)
        if special.all():
            raise ParameterError(f"sentence must have at least one word, got {text!r}")
        count = len(encoding.ids)
        if count > self._positions:
            own = int(special.sum())
            raise ParameterError(
                f"sentence must have at most {self._positions - own} tokens, the model's "
                f"{self._positions} positions less {own} special tokens, got {count - own}; "
                "cut it into shorter sentences"
            )
        return Sentence(text, tuple(encoding.tokens), np.array(encoding.ids, np.int64), special)
