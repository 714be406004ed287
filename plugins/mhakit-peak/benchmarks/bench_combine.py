"""``peak`` timed as mhakit times its own combinations, beside NumPy."""

from mhakit.testing import benchmarks

NAMES = ["peak", "concat_project"]

# "peak" in NumPy's best form, where you want to be held against it:
# (heads (1, T, H, E), hidden_states (1, T, M), parameters) -> (1, T, M)
FORMS = {}


class Combine(benchmarks.Combine):
    """How long does it take on heads that lie as attention writes them?"""

    params = (NAMES, ["mhakit", "numpy"])
    forms = FORMS


class Gradient(benchmarks.Gradient):
    """How long does it take forward and backward?"""

    params = (NAMES,)


class OverNumpy(benchmarks.OverNumpy):
    """How many times as long as NumPy's best form does it take?"""

    params = (NAMES,)
    forms = FORMS
