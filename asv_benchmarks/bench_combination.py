"""Combining heads: every installed combination, a plugin author's too, beside NumPy's best form."""

import os

from asv_benchmarks.numpy_forms import FORMS
from mhakit.errors import CombinationNotFound
from mhakit.testing import benchmarks


def names() -> list[str]:
    """Return the combinations that are installed where asv runs: a plugin is a parameter.

    asv counts parameters alike in all environments, so one that lacks the plugin skips its rows.
    """
    told = os.environ.get("ASV_MHAKIT_COMBINATIONS")
    if told:
        return told.split(",")
    import mhakit

    return [record.name for record in mhakit.combinations()]


class _Installed:
    """Skips the rows of a combination that this environment lacks."""

    def draw(self, combination):
        try:
            super().draw(combination)
        except CombinationNotFound as error:
            raise NotImplementedError(str(error)) from None


class Combine(_Installed, benchmarks.Combine):
    """How long does each combination take on heads that lie as attention writes them?"""

    params = (names(), ["mhakit", "numpy"])
    forms = FORMS


class Gradient(_Installed, benchmarks.Gradient):
    """How long does each combination take forward and backward?"""

    params = (names(),)


class OverNumpy(_Installed, benchmarks.OverNumpy):
    """How many times as long as NumPy's best form does each combination take?"""

    params = (names(),)
    forms = FORMS
