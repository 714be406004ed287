"""How fast mhakit is, over time: one file a subject, one class a question.

Rows, peers, checks and clock are ``mhakit.bench``'s and always this checkout's, whichever commit of
mhakit is measured: so older commits are measured as today's are. All sides wait passively: see
``mhakit.bench.process``.
"""

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).parent.parent


class _FromThisCheckout:
    """Finds ``mhakit.bench`` here, wherever the rest of mhakit lies."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if f"{name}.".startswith("mhakit.bench."):
            return PathFinder.find_spec(name, [str(ROOT.joinpath(*name.split(".")[:-1]))])
        return None


if _FromThisCheckout not in sys.meta_path:
    sys.meta_path.insert(0, _FromThisCheckout)

from mhakit.bench.process import default_threads, environment  # noqa: E402

for _name, _value in environment(default_threads()).items():
    os.environ.setdefault(_name, _value)
