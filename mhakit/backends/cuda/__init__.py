"""Numba kernels for CUDA devices; importing this imports numba-cuda, and needs no device.

``launch`` compiles and starts, ``memory`` copies and borrows, ``calling`` is one call of a verb;
``storage`` converts numbers and ``blocks`` is what kernels of scores share. The kernels:
``attention``, ``scoring``, ``weighing``, ``softmax``, ``weighted_sum``, ``merging``,
``combination``, and ``tiled_attention`` and ``decoding``, which bring a problem to the kernels of
``tiles``. ``choosing`` says which kernel of attention takes a problem.

``MHAKIT_CUDA_FLOAT32=fma`` in the environment, read at every call, asks for attention of float32
without tensor cores: every product an fma.
"""

from mhakit.backends.cuda import importing as importing  # isort: split

from mhakit.backends.cuda.choosing import attend, describe
from mhakit.backends.cuda.combination import combine_heads
from mhakit.backends.cuda.memory import empty
from mhakit.backends.cuda.merging import merge
from mhakit.backends.cuda.presence import why_absent
from mhakit.backends.cuda.scoring import score
from mhakit.backends.cuda.softmax import normalize
from mhakit.backends.cuda.weighing import weigh
from mhakit.backends.cuda.weighted_sum import weigh_values

__all__ = [
    "attend",
    "combine_heads",
    "describe",
    "empty",
    "merge",
    "normalize",
    "score",
    "weigh",
    "weigh_values",
    "why_absent",
]
