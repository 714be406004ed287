"""Numba kernels for the CPU; importing this imports numba. Kernels compile when first called.

``simd`` knows registers, ``memory`` single numbers; ``call`` turns a `Problem` into the record
that kernels read, ``prepared`` keeps it for calls like it, and ``launch`` decides how they run.
The kernels: ``attention``, ``decoding``, ``scoring``, ``weighing``, ``softmax``,
``weighted_sum``, ``merging``, ``combination``, ``combination_gradient``, ``projection``.
"""

from mhakit.backends.cpu.attention import attend, prepare
from mhakit.backends.cpu.combination import combine_heads
from mhakit.backends.cpu.combination_gradient import combine_heads_vjp
from mhakit.backends.cpu.description import describe, machine
from mhakit.backends.cpu.merging import merge
from mhakit.backends.cpu.projection import project
from mhakit.backends.cpu.scoring import score
from mhakit.backends.cpu.softmax import normalize
from mhakit.backends.cpu.warming import kernel_folder, warm_up
from mhakit.backends.cpu.weighing import weigh
from mhakit.backends.cpu.weighted_sum import weigh_values

__all__ = [
    "attend",
    "combine_heads",
    "combine_heads_vjp",
    "describe",
    "kernel_folder",
    "machine",
    "merge",
    "normalize",
    "prepare",
    "project",
    "score",
    "warm_up",
    "weigh",
    "weigh_values",
]
