"""Combining heads: every installed combination, a plugin author's too, beside NumPy's best form."""

from asv_benchmarks.numpy_forms import FORMS
from mhakit.testing import benchmarks


def names() -> list[str]:
    """Return the installed combinations: a plugin that is installed is a parameter."""
    import mhakit

    return [record.name for record in mhakit.combinations()]


class Combine(benchmarks.Combine):
    """How long does each combination take on heads that lie as attention writes them?"""

    params = (names(), ["mhakit", "numpy"])
    forms = FORMS


class Gradient(benchmarks.Gradient):
    """How long does each combination take forward and backward?"""

    params = (names(),)


class OverNumpy(benchmarks.OverNumpy):
    """How many times as long as NumPy's best form does each combination take?"""

    params = (names(),)
    forms = FORMS
