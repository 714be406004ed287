"""A heat map for each head, words on both axes, all in one figure and one file."""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mhakit.errors import DTypeError, MissingExtra, ParameterError, ShapeError

__all__ = ["SUFFIXES", "draw_heads", "picture_path"]

SUFFIXES = (".svg", ".png", ".pdf")

FIXED_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mhakit",  # the same figure gives the same bytes
    "svg.fonttype": "none",  # words stay text: they can be searched, and any script shows
    "text.usetex": False,
    "text.parse_math": False,  # "$x$" is a word like any other
    "font.family": ["sans-serif"],
    "axes.unicode_minus": False,
}
METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": "mhakit"},
    ".png": {"Software": "mhakit"},
    ".pdf": {"CreationDate": None, "Creator": "mhakit"},
}

POINT = 1 / 72
FONT = 7.0
SMALLEST_FONT = 4.0
WIDEST = 40.0
"""Inches that the maps of a row, or of a column, share before their cells shrink."""


def picture_path(path: str | Path) -> Path:
    """Return where a picture will be written, checked before anything is computed.

    Parameters
    ----------
    path : str or Path
        A file name that ends in ``.svg``, ``.png`` or ``.pdf``.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    ParameterError
        Where it has another suffix, or its directory does not exist.

    References
    ----------
    None.

    Examples
    --------
    >>> picture_path("heads.svg").suffix
    '.svg'
    """
    checked = Path(path)
    if checked.suffix.lower() not in SUFFIXES:
        raise ParameterError(
            f"a picture's file name must end in one of {', '.join(SUFFIXES)}, got {str(path)!r}"
        )
    if not checked.parent.is_dir():
        raise ParameterError(
            f"a picture must go to a directory that exists, got {str(path)!r}; "
            f"make {str(checked.parent)!r} first"
        )
    if checked.is_dir():
        raise ParameterError(f"a picture's path must name a file, got the directory {str(path)!r}")
    return checked


def draw_heads(
    weights: ArrayLike,
    tokens: Sequence[str],
    path: str | Path,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    title: str = "",
) -> Path:
    """Draw a heat map for each head, targets down and sources across, and write the file.

    The file is whole or not there: it is written beside the target first and then moved.

    Parameters
    ----------
    weights : ndarray of float, shape (L, H, T, T)
        Attention weights of L layers and H heads over one sentence.
    tokens : sequence of str
        The T tokens; shown as they are typed.
    path : str or Path
        Ends in ``.svg``, ``.png`` or ``.pdf``.
    layers, heads : sequence of int, optional
        What the maps are called, L and H numbers; None counts from 0.
    title : str
        Stands above the maps.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ParameterError
        Where the suffix is another, or the file cannot be written.
    ShapeError
        Where weights and tokens do not fit.
    DTypeError
        Where the weights are not floats.
    MissingExtra
        Where the extra ``plot`` is not installed.

    References
    ----------
    Vig, "A multiscale visualization of attention", arXiv:1906.05714, section 3.2.

    Examples
    --------
    >>> import tempfile
    >>> weights = np.array([[[[1.0, 0.0], [0.75, 0.25]]]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture = draw_heads(weights, ["a", "word"], f"{folder}/heads.svg")
    ...     "word" in picture.read_text()
    True
    """
    target = picture_path(path)
    A = _checked(weights, tokens)
    L, H = A.shape[:2]
    rows = list(range(L)) if layers is None else list(layers)
    columns = list(range(H)) if heads is None else list(heads)
    if len(rows) != L or len(columns) != H:
        raise ShapeError(
            f"layers and heads must name the L={L} and H={H} of weights, "
            f"got {len(rows)} and {len(columns)} names"
        )
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(
            f"drawing needs {error.name}, which is not installed; "
            'pip install "mhakit[plot]" brings it'
        ) from error
    names = [f"layer {layer}, head {head}" for layer in rows for head in columns]
    maps = A.reshape(L * H, *A.shape[2:])
    with matplotlib.rc_context(FIXED_STYLE):
        figure = _figure(Figure, maps, names, tuple(tokens), H, title)
        _write(figure, target)
    return target


def _checked(weights: ArrayLike, tokens: Sequence[str]) -> NDArray[np.float64]:
    A = np.asarray(weights)
    if A.dtype.kind != "f":
        raise DTypeError(f"weights must be an array of floats, got dtype {A.dtype}")
    T = len(tokens)
    if A.ndim != 4 or A.shape[2:] != (T, T) or A.size == 0:
        raise ShapeError(
            f"weights must have shape (L, H, T, T) with T={T} as tokens has, got shape {A.shape}"
        )
    return A.astype(np.float64)


def _figure(
    Figure: Any,
    maps: NDArray[np.float64],
    names: list[str],
    tokens: tuple[str, ...],
    across: int,
    title: str,
) -> Any:
    """Return a figure whose every length is set by hand: no layout engine, no surprises."""
    count, T = maps.shape[:2]
    columns = across if across > 1 and count > across else min(count, 4)
    rows = math.ceil(count / columns)
    largest = FONT + 2 if count == 1 else FONT
    cell = min(largest * (2.6 if count == 1 else 1.7) * POINT, WIDEST / (columns * T))
    side = max(T * cell, 1.3)
    cell = side / T
    font = min(largest, max(SMALLEST_FONT, cell / POINT / 1.25))
    step = math.ceil(font * 1.15 * POINT / cell)
    label = min(max(len(token) for token in tokens), 16) * font * 0.62 * POINT + 0.08
    above, between, margin = 0.28, 0.16, 0.2
    head = 0.4 if title else 0.1
    foot = 0.62
    width = max(margin * 2 + columns * (label + side + between), 4.9)
    height = head + rows * (above + side + label + between) + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    if title:
        figure.text(
            margin / width,
            1 - 0.28 / height,
            _clip(title, int(width * 11)),
            fontsize=11,
            va="center",
        )
    shown = range(0, T, step)
    words = [_clip(tokens[t], 16) for t in shown]
    image = None
    for index, (weights, name) in enumerate(zip(maps, names, strict=True)):
        row, column = divmod(index, columns)
        left = margin + column * (label + side + between) + label
        top = head + row * (above + side + label + between) + above
        axes = figure.add_axes(
            (left / width, 1 - (top + side) / height, side / width, side / height)
        )
        image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(name, fontsize=max(font, FONT) + 0.5, pad=3, loc="left")
        axes.set_xticks(shown, words, rotation=90, fontsize=font)
        axes.set_yticks(shown, words, fontsize=font)
        axes.tick_params(length=0, pad=2)
        axes.spines[:].set(linewidth=0.4, color="0.6")
    bar = figure.add_axes((margin / width, 0.34 / height, 1.8 / width, 0.1 / height))
    scale = figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
    scale.ax.tick_params(labelsize=FONT, length=2, pad=2)
    scale.outline.set_linewidth(0.4)
    figure.text(
        (margin + 1.95) / width,
        0.39 / height,
        "row: the word that looks, column: the word looked at",
        fontsize=FONT,
        va="center",
    )
    return figure


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(length - 1, 1)] + "…"


def _write(figure: Any, target: Path) -> None:
    """Write beside the target, then move: whoever reads sees the old file or the whole new one."""
    suffix = target.suffix.lower()
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=suffix, dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        with os.fdopen(handle, "wb") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box says as much
            figure.savefig(file, format=suffix[1:], dpi=150, metadata=METADATA[suffix])
        Path(name).chmod(0o666 & ~_umask())
        os.replace(name, target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        Path(name).unlink(missing_ok=True)


def _unwritable(target: Path, error: OSError) -> ParameterError:
    return ParameterError(
        f"a picture must go where a file can be written, got {str(target)!r}: {error.strerror}"
    )


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
