"""Ratios that outlive a machine: the table of `mhakit bench`, each figure a series of its own.

Both sides are timed in turns in one process, so that whatever disturbs the machine disturbs both;
the spread of the turns' ratios is a series, too. asv sorts by name, so these are shown first. Their
``version`` is written down: what was kept stays comparable while the code around it changes.
"""

import json
import subprocess
import sys

from asv_benchmarks import ROOT
from mhakit.bench.rows import PEERS, ROWS, Decoding, Prefill

_TABLE = "import sys; sys.path.append({root!r}); from asv_benchmarks.table import write; write()"


def rows_against(name):
    """Return the names of the rows that are held against a peer or a rate."""
    return [row.name for row in ROWS if any(goal.against == name for goal in row.goals)]


def setup_cache():
    """Measure the whole table in a process of its own, by this environment's mhakit."""
    command = [sys.executable, "-P", "-c", _TABLE.format(root=str(ROOT))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
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
    raise NotImplementedError(told["failed"].get(row, f"{row} is not held against {against}"))


def spread(result):
    """Return the range of the middle half of the turns' ratios, as a part of the ratio."""
    return (result["high"] - result["low"]) / result["measured"]


class FractionOfMatmul:
    """What part of the rate of the machine's fastest matrix product does attention reach?"""

    params = (rows_against("matmul"),)
    param_names = ("row",)
    unit = "ratio"
    version = "1"

    def setup(self, told, row):
        self.result = result_of(told, row, "matmul")

    def track_fraction_of_matmul(self, told, row):
        return self.result["measured"]

    def track_fraction_of_matmul_spread(self, told, row):
        return spread(self.result)


class FractionOfReadBandwidth:
    """What part of the machine's read bandwidth does decoding reach?"""

    params = (rows_against("read"),)
    param_names = ("row",)
    unit = "ratio"
    version = "1"

    def setup(self, told, row):
        self.result = result_of(told, row, "read")

    def track_fraction_of_read_bandwidth(self, told, row):
        return self.result["measured"]

    def track_fraction_of_read_bandwidth_spread(self, told, row):
        return spread(self.result)


class Headline:
    """How many times faster than its peers is mhakit, by the geometric mean of the table?"""

    params = (["every ratio with a target"],)
    param_names = ("over",)
    unit = "ratio"
    version = "1"

    def setup(self, told, over):
        self.mean = {"every ratio with a target": told["geometric_mean"]}[over]
        races = [r for r in told["rows"] if r["against"] in PEERS and r["target"] is not None]
        if told["failed"] or any(race["measured"] is None for race in races):
            raise NotImplementedError("not every peer is installed, or not every row can be done")

    def track_geometric_mean(self, told, over):
        return self.mean


class SpeedupOverNumpy:
    """How many times faster than NumPy's best form are heads combined?"""

    params = (rows_against("numpy"),)
    param_names = ("row",)
    unit = "ratio"
    version = "1"

    def setup(self, told, row):
        self.result = result_of(told, row, "numpy")

    def track_speedup_over_numpy(self, told, row):
        return self.result["measured"]

    def track_speedup_over_numpy_spread(self, told, row):
        return spread(self.result)


class SpeedupOverOnnxruntime:
    """How many times faster than onnxruntime is each row of the table that it can do?"""

    params = (rows_against("onnxruntime"),)
    param_names = ("row",)
    unit = "ratio"
    version = "1"

    def setup(self, told, row):
        self.result = result_of(told, row, "onnxruntime")

    def track_speedup_over_onnxruntime(self, told, row):
        return self.result["measured"]

    def track_speedup_over_onnxruntime_spread(self, told, row):
        return spread(self.result)


class SpeedupOverTorch:
    """How many times faster than torch is each row of the table?"""

    params = (rows_against("torch"),)
    param_names = ("row",)
    unit = "ratio"
    version = "1"

    def setup(self, told, row):
        self.result = result_of(told, row, "torch")

    def track_speedup_over_torch(self, told, row):
        return self.result["measured"]

    def track_speedup_over_torch_spread(self, told, row):
        return spread(self.result)


class TableMemory:
    """How does what attention holds beyond its output grow, as the table counts it?"""

    params = ([row.name for row in ROWS if isinstance(row.work, Prefill | Decoding)],)
    param_names = ("row",)
    unit = "as the row says"
    version = "1"

    def setup(self, told, row):
        goal = next(r.goals[0] for r in ROWS if r.name == row)
        self.result = result_of(told, row, goal.against)

    def track_growth(self, told, row):
        return self.result["measured"]
