"""The table of `mhakit bench`, measured once a commit, each figure a series of its own.

Ratios are taken in turns, so that they hold across machines where times do not.
"""

import json
import subprocess
import sys

from mhakit.bench.contest import installed
from mhakit.bench.rows import PEERS, ROWS, Decoding, Prefill


def rows_against(name):
    """Return the names of the rows that are held against a peer or a rate."""
    return [row.name for row in ROWS if any(goal.against == name for goal in row.goals)]


def takers():
    """Return every row with mhakit and with each peer that is installed and can do it."""
    return [
        f"{row.name}: {who}"
        for row in ROWS
        if not isinstance(row.work, Prefill | Decoding)
        for who in ("mhakit", *(g.against for g in row.goals if g.against in PEERS))
        if who == "mhakit" or installed(who)
    ]


def setup_cache():
    """Measure the whole table in a process of its own."""
    command = [sys.executable, "-m", "mhakit.cli", "bench", "--quick", "--json=-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)  # a row that failed its check is in it, and fails alone


setup_cache.timeout = 600


def result_of(told, row, against):
    """Return a row's result; a peer that is not installed skips the row."""
    for result in told["rows"]:
        if f"{result['family']} {result['shape']}" == row and result["against"] == against:
            if result["wrong"]:
                raise AssertionError(result["note"])
            if result["measured"] is None:
                raise NotImplementedError(result["note"])  # how asv skips a row
            return result
    raise NotImplementedError(f"{row} is not held against {against}")


class SpeedupOverTorch:
    """How many times faster than torch is each row of the table?"""

    params = (rows_against("torch"),)
    param_names = ("row",)
    unit = "ratio"

    def setup(self, told, row):
        self.result = result_of(told, row, "torch")

    def track_speedup_over_torch(self, told, row):
        return self.result["measured"]


class SpeedupOverOnnxruntime:
    """How many times faster than onnxruntime is each row of the table that it can do?"""

    params = (rows_against("onnxruntime"),)
    param_names = ("row",)
    unit = "ratio"

    def setup(self, told, row):
        self.result = result_of(told, row, "onnxruntime")

    def track_speedup_over_onnxruntime(self, told, row):
        return self.result["measured"]


class SpeedupOverNumpy:
    """How many times faster than NumPy's best form are heads combined?"""

    params = (rows_against("numpy"),)
    param_names = ("row",)
    unit = "ratio"

    def setup(self, told, row):
        self.result = result_of(told, row, "numpy")

    def track_speedup_over_numpy(self, told, row):
        return self.result["measured"]


class FractionOfMatmul:
    """What part of the rate of the machine's fastest matrix product does attention reach?"""

    params = (rows_against("matmul"),)
    param_names = ("row",)
    unit = "ratio"

    def setup(self, told, row):
        self.result = result_of(told, row, "matmul")

    def track_fraction_of_matmul(self, told, row):
        return self.result["measured"]


class FractionOfReadBandwidth:
    """What part of the machine's read bandwidth does decoding reach?"""

    params = (rows_against("read"),)
    param_names = ("row",)
    unit = "ratio"

    def setup(self, told, row):
        self.result = result_of(told, row, "read")

    def track_fraction_of_read_bandwidth(self, told, row):
        return self.result["measured"]


class Seconds:
    """How long does each row take, for mhakit and for those of its peers that can do it?"""

    params = (takers(),)
    param_names = ("row_and_who",)
    unit = "seconds"

    def setup(self, told, row_and_who):
        row, _, who = row_and_who.partition(": ")
        against = who
        if who == "mhakit":
            against = next(r.goals[0].against for r in ROWS if r.name == row)
        self.seconds = result_of(told, row, against)[
            "seconds" if who == "mhakit" else "peer_seconds"
        ]

    def track_seconds(self, told, row_and_who):
        return self.seconds


class Memory:
    """How does what attention holds beyond its output grow, as the table counts it?"""

    params = ([row.name for row in ROWS if isinstance(row.work, Prefill | Decoding)],)
    param_names = ("row",)
    unit = "as the row says"

    def setup(self, told, row):
        goal = next(r.goals[0] for r in ROWS if r.name == row)
        self.result = result_of(told, row, goal.against)

    def track_growth(self, told, row):
        return self.result["measured"]


class Headline:
    """How many times faster than its peers is mhakit, by the geometric mean of the table?"""

    params = (["every ratio with a target"],)
    param_names = ("over",)
    unit = "ratio"

    def setup(self, told, over):
        if told["geometric_mean"] is None:
            raise NotImplementedError("no peer is installed")

    def track_geometric_mean(self, told, over):
        return told["geometric_mean"]
