"""One commit of mhakit in a process of its own, asked turn by turn.

The process imports mhakit from the folder it is given and ``mhakit.bench`` from this checkout. It
makes and checks a row's sides when first asked for it, and answers each request with the seconds of
both sides, taken in turns: so a ratio meets one state of the machine, and two processes asked by
turns meet nearly the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from asv_benchmarks import ROOT

__all__ = ["Side"]

_START = "import sys; sys.path.append({root!r}); from asv_benchmarks.side import serve; serve()"


class Side:
    """A process that measures one commit's library."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(root=str(ROOT))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )

    def ask(self, **request):
        """Send a request; the process begins with it at once."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self):
        """Wait for the answer to the request."""
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the measuring process ended with {self._process.wait()}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve():
    """Answer requests from stdin until it ends; whatever else is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from mhakit.bench.contest import load_peers

    load_peers()
    made = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            told = _measured(made, **request)
        except Exception as error:
            # a row that an older commit cannot do is told, and the others go on
            told = {"failed": f"{type(error).__name__}: {error}".partition("\n")[0]}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def _measured(made, row, against, seconds):
    """Return the seconds of both sides' turns, and what their ratio is to be multiplied by."""
    import mhakit
    from mhakit.bench.machine import rate
    from mhakit.bench.measuring import contest
    from mhakit.bench.rows import PEERS, ROWS
    from mhakit.bench.timing import Effort, take_turns

    if row not in made:
        made[row] = contest(next(each for each in ROWS if each.name == row)), {}
    sides, peers = made[row]
    if against not in peers:
        # a rate of the machine computes nothing that could be compared
        if against in PEERS:
            peers[against] = sides.peers[against]().call, 1.0
        else:
            limit = rate(against)
            peers[against] = limit.call, sides.work[against] / limit.work
    peer, share = peers[against]
    timings = take_turns(sides.mine, peer, Effort(seconds, 3, 4 * seconds, 5e-4))
    return {
        "mine": timings.mine,
        "peer": timings.peer,
        "share": share,
        "library": str(Path(mhakit.__file__).parent.parent),
    }
