"""Sentences of a text file, one a line."""

from __future__ import annotations

from pathlib import Path

from mhakit.errors import ParameterError

__all__ = ["read_sentences"]

SENTENCES = Path(__file__).parent / "sample" / "sentences.txt"


def read_sentences(path: str | Path | None = None) -> tuple[str, ...]:
    """Return the sentences of a text file, one a line.

    Parameters
    ----------
    path : str or Path, optional
        A UTF-8 file; None is the 243 English sentences that come with the sample.

    Returns
    -------
    tuple of str
        In their order, without empty lines.

    Raises
    ------
    ParameterError
        Where the file cannot be read, or is no text.

    References
    ----------
    None: the sentences that come with the sample were written for it.

    Examples
    --------
    >>> len(read_sentences())
    243
    """
    file = SENTENCES if path is None else Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ParameterError(
            f"a text must be a file that can be read, got {str(file)!r}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise ParameterError(
            f"a text must be written in UTF-8, got {str(file)!r} with other bytes at "
            f"{error.start}; convert it first"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
