"""A commit of mhakit as a folder that Python can import from, made once."""

import io
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from pathlib import Path

from mhakit.errors import ParameterError

__all__ = ["commit_of", "git", "library", "refuse_changes", "subject_of"]

MEASURED = ("mhakit", "plugins/mhakit_builtins")


def git(root, *arguments):
    """Return what a git command prints."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ParameterError(f"git {arguments[0]} must work in {root}, got: {done.stderr.strip()}")
    return done.stdout.strip()


def commit_of(root, name, what="BASE"):
    """Return the hash of a commit by any of its names."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except ParameterError:
        raise ParameterError(
            f"{what} must name a commit of this repository, got {name!r}; git log names them"
        ) from None


def subject_of(root, commit):
    """Return a commit's first eight letters and what it says."""
    return git(root, "log", "-1", "--format=%h %s", "--abbrev=8", commit)


def refuse_changes(root):
    """Raise ParameterError where what lies in the checkout is no commit's."""
    changed = git(root, "status", "--porcelain", "--", "mhakit", "plugins/mhakit_builtins")
    if changed:
        names = [line.split()[-1] for line in changed.splitlines()]
        raise ParameterError(
            f"the checkout must hold no change that is not committed, for commits are compared, "
            f"got {', '.join(names[:3])}{' and more' * (len(names) > 3)}; commit or stash"
        )


def library(root, commit):
    """Return the folder of a commit: its sources, and the entry points of its combinations."""
    folder = Path(root, ".asv", "libraries", commit)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(
        ["git", "-C", str(root), "archive", commit, *MEASURED, "pyproject.toml"],
        capture_output=True,
        check=True,
    )
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(made)
    shutil.move(made / "plugins" / "mhakit_builtins", made / "mhakit_builtins")
    entries = tomllib.loads((made / "pyproject.toml").read_text())["project"]["entry-points"]
    told = made / "mhakit-0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: mhakit\nVersion: 0\n")
    lines = [f"[{group}]" for group in entries]
    lines += [f"{name} = {module}" for name, module in entries["mhakit"].items()]
    (told / "entry_points.txt").write_text("\n".join(lines) + "\n")
    made.rename(folder)
    return folder
