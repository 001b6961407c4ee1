"""Compiled operations on panel matrices and padded vectors, which are addresses here."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import carray, njit

from fastjac.kernels.llvm.intrinsics import dots, long_row, pointer, transpose, transpose_scaled
from fastjac.kernels.llvm.vectors import DOTS, MR, itemsize, panel_width
from fastjac.kernels.target import NV

inner = njit(nogil=True, error_model="numpy")


@inner
def vector(dtype, at, size):
    """Return ``size`` elements at an address as an array."""
    return carray(pointer(at), size, dtype)


@inner
def vector_bytes(dtype, size):
    """Return the bytes of a vector that is padded to whole panels."""
    width = panel_width(dtype)
    return (size + width - 1) // width * width * itemsize(dtype)


@inner
def integers(at, size):
    """Return ``size`` int64 at an address as an array."""
    return carray(pointer(at), size, np.int64)


@inner
def tile_rows(rows):
    """Return how many rows a tile takes so that the fewest tiles cover ``rows`` evenly."""
    tiles = (rows + MR - 1) // MR
    return (rows + tiles - 1) // tiles


@inner
def rows_times(dtype, rows, cols, panels, x, out):
    """Write ``panels @ x`` (rows,) for a panel matrix (rows, cols) and a padded vector."""
    size, width = itemsize(dtype), panel_width(dtype)
    for start in range(0, rows, DOTS):
        count, at = min(DOTS, rows - start), panels + start * width * size
        dots(dtype, count, (cols + width - 1) // width, at, rows * width * size, x, out + start * size)


@inner
def times_rows(dtype, rows, cols, panels, x, index, count, out):
    """Write ``sum_k x[k] * panels[index[k], :]`` (padded cols,) for ``count`` of the rows."""
    size, width = itemsize(dtype), panel_width(dtype)
    row, lanes = width * size, width // NV
    for p in range((cols + width - 1) // width):
        vectors = min(NV, (cols - p * width + lanes - 1) // lanes)
        at = panels + p * rows * row
        long_row(dtype, vectors, count, x, row, at, row, index, out + p * row)


@inner
def clear_tail(dtype, at, size):
    """Write zeros from the end of a vector to the end of its last panel."""
    fill(dtype, at + size * itemsize(dtype), -size % panel_width(dtype))


@inner
def fill(dtype, at, size):
    """Write ``size`` zeros."""
    values = vector(dtype, at, size)
    for i in range(size):
        values[i] = 0


@inner
def all_finite(values):
    """Return whether no element is infinite or NaN."""
    finite = True
    for i in range(values.size):
        finite &= np.isfinite(values[i])
    return finite


@inner
def copy(dtype, source, size, target):
    """Copy ``size`` elements."""
    values, copies = vector(dtype, source, size), vector(dtype, target, size)
    for i in range(size):
        copies[i] = values[i]


@inner
def copy_rows(dtype, edge, rows, cols, out, offsets):
    """Copy the first ``cols`` columns of a tile to where its rows belong."""
    row = panel_width(dtype) * itemsize(dtype)
    offset = integers(offsets, rows)
    for r in range(rows):
        copy(dtype, edge + r * row, cols, out + offset[r])


@inner
def exchange(dtype, source, stride, rows, cols, out, out_stride, mean=0, gain=0):
    """Write a (rows, cols) matrix transposed; rows are ``stride`` and ``out_stride`` bytes apart.

    With a vector ``gain``, write ``(row - mean) * gain`` so, with one mean for each row.
    """
    size, side = itemsize(dtype), panel_width(dtype) // NV
    while side > min(rows, cols):
        side //= 2
    for i in range(0, rows, side):
        while side // 2 >= rows - i:
            side //= 2
        r = min(i, rows - side)  # The last row of squares overlaps the one before it.
        at, to = source + r * stride, out + r * size
        if gain:
            transpose_scaled(dtype, side, cols, at, stride, to, out_stride, mean + r * size, gain)
        else:
            transpose(dtype, side, cols, at, stride, to, out_stride)


@inner
def exchange_panels(dtype, source, rows, cols, out):
    """Write a panel matrix (rows, cols) transposed into panels (cols, rows)."""
    width = panel_width(dtype)
    row = width * itemsize(dtype)
    for p in range((cols + width - 1) // width):
        for q in range((rows + width - 1) // width):
            at, to = source + (p * rows + q * width) * row, out + (q * cols + p * width) * row
            exchange(dtype, at, row, min(width, rows - q * width), min(width, cols - p * width), to, row)
