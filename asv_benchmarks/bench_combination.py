"""Combining heads: every installed combination, a plugin author's too, beside NumPy's best form."""

from mhakit.bench.combining import contest
from mhakit.bench.rows import Combination


def names() -> list[str]:
    """Return the installed combinations: a plugin that is installed is a parameter."""
    import mhakit

    return [record.name for record in mhakit.combinations()]


class Combine:
    """How long does each combination take on heads that lie as attention writes them?"""

    params = (names(), ["mhakit", "numpy"])
    param_names = ("combination", "who")

    def setup(self, combination, who):
        made = contest(Combination(combination))
        # without a form in NumPy the peer raises NotImplementedError, which is how asv skips
        self.call = made.mine if who == "mhakit" else made.peers["numpy"]().call
        self.call()

    def time_combine(self, combination, who):
        self.call()
