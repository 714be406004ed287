"""Arrays that end where memory does: whoever reads on behind one ends the process."""

import ctypes
import mmap

import numpy as np

__all__ = ["at_the_end"]

_libc = ctypes.CDLL(None, use_errno=True)


def at_the_end(values, order="C"):
    """Copy an array to the end of pages of its own, before one that nobody may touch."""
    values = np.asarray(values)
    pages = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    last = ctypes.c_void_p(begin + pages)
    assert _libc.mprotect(last, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = np.frombuffer(memory, values.dtype, values.size, pages - values.nbytes)
    copy = copy.reshape(values.shape, order=order)
    copy[...] = values
    return copy
