"""Arrays that end at an inaccessible page, or begin right after one: a touch outside ends the process."""

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_blocks = []


def _protect(address, size, protection):
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        raise OSError(ctypes.get_errno(), "mprotect failed")


def guarded(shape, dtype, at, alignment=None):
    """Return zeros of ``shape`` between two inaccessible pages.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype
    at : "end" or "start"
        Whether the last byte is the last before a page that cannot be touched, or the first byte the
        first after one.
    alignment : int, optional
        Of the first byte; with "end" the gap to the page is less than this. Default: the item's size,
        which leaves no gap.
    """
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    size = count * dtype.itemsize
    inside = max(-(-size // PAGE), 1) * PAGE
    block = mmap.mmap(-1, inside + 2 * PAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(block))
    start = 0 if at == "start" else (inside - size) // (alignment or 1) * (alignment or 1)
    array = np.frombuffer(block, dtype, count, offset=PAGE + start).reshape(shape)
    _protect(first, PAGE, PROT_NONE)
    _protect(first + PAGE + inside, PAGE, PROT_NONE)
    _blocks.append(block)
    return array


def guarded_copy(values, at):
    """Return a copy of an array between inaccessible pages."""
    values = np.asarray(values)
    copy = guarded(values.shape, values.dtype, at)
    copy[...] = values
    return copy


def read_only(array):
    """Make the pages of a guarded array read-only: a write ends the process, too."""
    first = array.ctypes.data // PAGE * PAGE
    _protect(first, -(-(array.ctypes.data + array.nbytes - first) // PAGE) * PAGE, PROT_READ)
    return array
