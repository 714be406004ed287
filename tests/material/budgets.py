"""How far from exact a result may lie whose formula a test writes itself."""

import numpy as np

from mhakit.problem import computation_dtype
from mhakit.testing import Budget, allowance


def budget_of(formula, dtype):
    """Return what results of that dtype may be, as `mhakit.testing.budget` has it.

    ``formula(real)`` computes them in plain NumPy, in arrays and numbers of type ``real``.
    """
    real = computation_dtype(dtype).type
    exact = formula(np.longdouble if real == np.float64 else np.float64)
    return Budget(exact, allowance(exact, formula(real), np.dtype(dtype)))
