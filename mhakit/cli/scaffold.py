"""Write a plugin's distribution: the files of ``template/``, with the names that were asked for."""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mhakit import plugin_api, registry
from mhakit.errors import ParameterError

__all__ = ["Names", "names_of", "write_plugin"]

TEMPLATE = Path(__file__).parent / "template"
SUFFIX = ".in"

WIDEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Names:
    """What a new plugin is called, everywhere."""

    distribution: str
    """what pip installs"""
    package: str
    """what Python imports"""
    combination: str
    """what ``combine=`` takes"""
    cls: str

    def filled(self, text: str, description: str, author: str) -> str:
        """Return a template's text with these names in it."""
        return Template(text).substitute(
            distribution=self.distribution,
            package=self.package,
            combination=self.combination,
            cls=self.cls,
            description=description,
            Description=description[:1].upper() + description[1:],
            author=author,
        )


def names_of(distribution: str) -> Names:
    """Return the names that follow from a distribution's, or raise for one that cannot be.

    Examples
    --------
    >>> names_of("mhakit-very-loud")  # doctest: +NORMALIZE_WHITESPACE
    Names(distribution='mhakit-very-loud', package='mhakit_very_loud', combination='very_loud',
          cls='VeryLoud')
    """
    if len(distribution) > WIDEST_NAME or not re.fullmatch(
        r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", distribution
    ):
        raise ParameterError(
            "a plugin's name must be letters, digits and - between them, as pip takes it, and at "
            f"most {WIDEST_NAME} characters, got {distribution!r}; try mhakit-loud"
        )
    package = re.sub(r"[-_.]+", "_", distribution).lower()
    combination = package.removeprefix("mhakit_")
    for word in (package, combination):
        if not word.isidentifier() or keyword.iskeyword(word) or word == "mhakit":
            raise ParameterError(
                f"a plugin's name must make a name in Python, got {distribution!r}, which makes "
                f"{word!r}; try mhakit-loud"
            )
    if importlib.util.find_spec(package) is not None:
        raise ParameterError(
            f"a plugin's name must be new, got {distribution!r}, and a package {package!r} can be "
            "imported already; take another name"
        )
    taken = {record.name: record for record in registry.installed()}
    if combination in taken:
        record = taken[combination]
        raise ParameterError(
            f"a plugin's name must be new, got {distribution!r}, and combination {combination!r} "
            f"is registered by {record.distribution} {record.version}; take another name"
        )
    cls = "".join(part.capitalize() for part in combination.split("_"))
    if cls in plugin_api.__all__ or hasattr(builtins, cls):
        cls += "Heads"
    return Names(distribution, package, combination, cls)


def write_plugin(
    names: Names, directory: Path, description: str, author: str | None = None
) -> Path:
    """Write the distribution into a new folder of its name, all of it or nothing.

    Returns
    -------
    Path
        The folder.
    """
    for what, text in (("description", description), ("author", author or "")):
        if not text.isprintable() or set('"\\') & set(text):
            raise ParameterError(
                f"{what} must be one line without quotation marks and backslashes, got {text!r}"
            )
    target = directory / names.distribution
    if target.exists() or target.is_symlink():
        raise ParameterError(
            f"a plugin must go to a folder that is not there yet, got {str(target)!r}; "
            "move it away, or take another name"
        )
    unfinished = directory / f".{names.distribution}-{secrets.token_hex(4)}"
    try:
        try:
            _fill(names, unfinished, description, author or f"The {names.distribution} authors")
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ParameterError(
            f"a plugin must go where files can be written, got {str(target)!r}: {error.strerror}"
        ) from error
    return target


def _fill(names: Names, folder: Path, description: str, author: str) -> None:
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        place = str(source.relative_to(TEMPLATE)).removesuffix(SUFFIX)
        place = place.replace("PACKAGE", names.package).replace("COMBINATION", names.combination)
        path = folder / place.replace("dot-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            names.filled(source.read_text("utf-8"), description, author), encoding="utf-8"
        )
