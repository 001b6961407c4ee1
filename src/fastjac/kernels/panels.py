"""Compiled operations on panel matrices and padded vectors, which are addresses here."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import njit

from fastjac.kernels.linking import INNER
from fastjac.kernels.llvm.intrinsics import (
    dots,
    integers,
    larger,
    long_row,
    smaller,
    transpose,
    transpose_scaled,
    vector,
)
from fastjac.kernels.llvm.vectors import itemsize, panel_width
from fastjac.kernels.target import NV

inner = njit(nogil=True, error_model="numpy", **INNER)


@inner
def vector_bytes(dtype, size):
    """Return the bytes of a vector that is padded to whole panels."""
    width = panel_width(dtype)
    return (size + width - 1) // width * width * itemsize(dtype)


@inner
def tabulate(dtype, columns, index, count, a_panel, table):
    """Write the table of a `product` over ``count`` units of an index: the byte offsets in A and in B.

    In A they are these ``columns``. Its panels lie ``a_panel`` bytes apart.
    """
    size, width = itemsize(dtype), panel_width(dtype)
    places, units, pairs = integers(columns, count), integers(index, count), integers(table, 2 * count)
    for i in range(count):
        pairs[2 * i] = places[i] // width * a_panel + places[i] % width * size
        pairs[2 * i + 1] = units[i] * width * size


@inner
def blocks_of(dtype, context, count):
    """Return in how many blocks of units a panel of B stays in the first cache, and the units of a block."""
    most = larger(context.first_cache // 4 // (panel_width(dtype) * itemsize(dtype)), 1)
    blocks = larger((count + most - 1) // most, 1)
    return blocks, (count + blocks - 1) // blocks


@inner
def rows_times(dtype, context, rows, cols, panels, x, out):
    """Write ``panels @ x`` (rows,) for a panel matrix (rows, cols) and a padded vector."""
    width = panel_width(dtype)
    stride = rows * width * itemsize(dtype)
    dots(dtype, rows, (cols + width - 1) // width, panels, stride, x, context.partial, out)


@inner
def times_rows(dtype, rows, cols, panels, x, index, count, out):
    """Write ``sum_k x[k] * panels[index[k], :]`` (padded cols,) for ``count`` of the rows."""
    size, width = itemsize(dtype), panel_width(dtype)
    row, lanes = width * size, width // NV
    for p in range((cols + width - 1) // width):
        vectors = smaller(NV, (cols - p * width + lanes - 1) // lanes)
        at = panels + p * rows * row
        long_row(dtype, vectors, count, x, at, row, index, out + p * row)


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
def all_within(dtype, at, size, bound):
    """Return whether no element is larger than a bound, or NaN."""
    values = vector(dtype, at, size)
    most, within = values.dtype.type(bound), True
    for i in range(size):
        within &= abs(values[i]) <= most
    return within


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
def exchange(dtype, source, stride, rows, cols, out, out_stride):
    """Write a (rows, cols) matrix transposed; rows are ``stride`` and ``out_stride`` bytes apart."""
    none = np.intp(0)  # A literal would be compiled for.
    exchange_scaled(dtype, source, stride, rows, cols, out, out_stride, none, none)


@inner
def exchange_scaled(dtype, source, stride, rows, cols, out, out_stride, mean, gain):
    """Write ``(row - mean) * gain`` as `exchange` does, with one mean for each row and a vector of gains.

    Without ``gain`` it is 0, and there is no mean.
    """
    size, side = itemsize(dtype), panel_width(dtype) // NV
    while side > smaller(rows, cols):
        side //= 2
    for i in range(0, rows, side):
        while side // 2 >= rows - i:
            side //= 2
        r = smaller(i, rows - side)  # The last row of squares overlaps the one before it.
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
            exchange(
                dtype, at, row, smaller(width, rows - q * width), smaller(width, cols - p * width), to, row
            )
