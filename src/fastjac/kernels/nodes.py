"""The operations of a graph's tapes: on values, and on matrices of derivatives.

A matrix has a row for each output, or for each input where a tape goes from the inputs on, and a column for
each entry of a value, in panels. The result alone lies in rows of the caller's memory.
"""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math

from fastjac.kernels.activations import activate
from fastjac.kernels.backward import head_columns, head_rows, multiply
from fastjac.kernels.forward import activate_layer, bounded, compact, head, leave_out_none, times_w
from fastjac.kernels.layout import NODE
from fastjac.kernels.llvm.intrinsics import dots, integers, scale, smaller, vector
from fastjac.kernels.llvm.vectors import itemsize, panel_width
from fastjac.kernels.operations import (
    ADD,
    AFFINE,
    APPLY,
    CLEAR,
    GATHER,
    HEAD,
    HEAD_TIMES,
    HEAD_TIMES_W,
    MOVE,
    MULTIPLY,
    NORMALISE,
    PICK,
    PRODUCT,
    SCALE,
    SPREAD,
    TIMES_HEAD,
    TIMES_NORMALISE,
    TIMES_SCALE,
    TIMES_W,
)
from fastjac.kernels.panels import all_finite, copy, exchange, fill, inner, rows_times


@inner
def evaluate(dtype, context, layers, x, y):
    """Compute all values of a graph for one sample, and what their derivatives need."""
    copy(dtype, x, context.n_inputs, context.x)
    finite = True
    for node in vector(NODE, context.value_tape, context.n_value_tape):
        finite &= _evaluate(dtype, context, layers, node)
    copy(dtype, context.output, context.n_outputs, y)
    context.finite = finite
    if not finite:
        leave_out_none(layers)


@inner
def _evaluate(dtype, context, layers, node):
    """Compute one value; return whether it is finite, or for a layer whether its pre-activation is."""
    operation, size, layer = node.operation, node.size, layers[node.layer]
    if operation == AFFINE:
        times_w(dtype, context, layers, node.layer, node.first, layer.a)
        finite = activate_layer(dtype, layer, layer.b)
        compact(dtype, layer)
        return finite
    if operation == APPLY:
        copy(dtype, node.first, size, layer.a)
        finite = all_finite(vector(dtype, layer.a, size))
        activate(layer.function, layer.parameter, layer.prelu, layer.a, layer.slope, size)
        return finite and bounded(dtype, layer, layer.slope, size)
    if operation == HEAD:
        context.gain, context.shares = layer.slope, layer.shares
        finite = all_finite(vector(dtype, layer.a, size))
        head(dtype, context, layer, node.out)
        layer.pivot = context.pivot
        return finite
    offset = itemsize(dtype)
    out = vector(dtype, node.out + node.to * offset, size)
    if operation == NORMALISE:
        _normalise(dtype, context, node)
    elif operation == GATHER:
        first, index = vector(dtype, node.first, node.rows), integers(node.index, size)
        for i in range(size):
            out[i] = first[index[i]]
    else:
        a, b = vector(dtype, node.first + node.start * offset, size), vector(dtype, node.second, size)
        if operation == ADD:
            for i in range(size):
                out[i] = a[i] + b[i]
        elif operation == MULTIPLY:
            for i in range(size):
                out[i] = a[i] * b[i]
        elif operation == SCALE:
            shift = vector(dtype, node.index, size)
            for i in range(size):
                out[i] = a[i] * b[i] + shift[i]
        else:
            for i in range(size):
                out[i] = a[i]
    return all_finite(out)


@inner
def _normalise(dtype, context, node):
    """Write ``(x - m) / sqrt(mean((x - m)**2) + epsilon)``, and keep one over that root.

    ``second`` is a vector of ones, or 0 where m is 0.
    """
    size, width = node.size, panel_width(dtype)
    panels, row = (size + width - 1) // width, width * itemsize(dtype)
    x, out = vector(dtype, node.first, size), vector(dtype, node.out, size)
    edge, mean = vector(dtype, context.edge, 1), x.dtype.type(0)
    if node.second:
        dots(dtype, 1, panels, node.second, row, node.first, context.partial, context.edge)
        mean = edge[0] / x.dtype.type(size)
    for i in range(size):
        out[i] = x[i] - mean
    dots(dtype, 1, panels, node.out, row, node.out, context.partial, context.edge)
    node.number = 1 / math.sqrt(edge[0] / x.dtype.type(size) + x.dtype.type(node.epsilon))
    factor = x.dtype.type(node.number)
    for i in range(size):
        out[i] *= factor


@inner
def walk(dtype, context, layers, steps, tape, result):
    """Carry out a tape of operations on matrices; the last writes ``result``."""
    for node in tape:
        _transform(dtype, context, layers, steps, node, result)


@inner
def _transform(dtype, context, layers, steps, node, result):
    """Carry out one operation on matrices."""
    operation, rows, cols, layer = node.operation, node.rows, node.size, layers[node.layer]
    width, size = panel_width(dtype), itemsize(dtype)
    row = width * size
    if operation == PRODUCT:
        step = steps[node.step]
        multiply(dtype, context, layers, step, context.n_outputs, result)
    elif operation == TIMES_W:
        times_w(dtype, context, layers, node.layer, node.first, node.out)
    elif operation == HEAD_TIMES_W:
        _take_head(context, layer)
        head_rows(dtype, context, layer, context.n_outputs, node.second, node.out, layer.fan_out * row)
    elif operation == TIMES_HEAD:
        _take_head(context, layer)
        _times_head(dtype, context, layer, node)
    elif operation == HEAD_TIMES:
        _take_head(context, layer)
        head_columns(dtype, context, layer, rows, node.out)
    elif operation == TIMES_SCALE:
        for p in range((cols + width - 1) // width):
            at = p * rows * row
            scale(dtype, rows, width, node.first + at, context.zeros, 0, node.second + p * row, node.out + at)
    elif operation == TIMES_NORMALISE:
        _times_normalise(dtype, context, node)
    elif operation == MOVE:
        _move(dtype, context, node, result)
    elif operation in (SPREAD, PICK):
        _move_each(dtype, context, node, result)
    elif operation == CLEAR:
        if node.out:
            cols = (cols + width - 1) // width * width
        fill(dtype, node.out if node.out else result, rows * cols)
    else:
        for p in range((cols + width - 1) // width):
            count = smaller(width, cols - p * width)
            to = result + p * width * rows * size
            exchange(dtype, node.first + p * rows * row, row, rows, count, to, rows * size)


@inner
def _take_head(context, layer):
    """Make a layer's head the one that is multiplied by."""
    context.gain, context.shares, context.pivot = layer.slope, layer.shares, layer.pivot


@inner
def _times_head(dtype, context, layer, node):
    """Multiply rows by a softmax's Jacobian from the right: ``G (diag(s) - s s.T)``; see `head`."""
    rows, cols, pivot = node.rows, node.size, context.pivot
    width, size = panel_width(dtype), itemsize(dtype)
    row = width * size
    for p in range((cols + width - 1) // width):
        at = p * rows * row
        scale(dtype, rows, width, node.first + at, context.zeros, 0, context.gain + p * row, node.out + at)
    rest, pivots = vector(dtype, context.extra, rows), vector(dtype, context.mean, rows)
    column = vector(dtype, node.out + pivot // width * rows * row, rows * width)
    if pivot >= 0:
        for r in range(rows):
            pivots[r], column[r * width + pivot % width] = column[r * width + pivot % width], 0
    # With ones, the sums of rows.
    rows_times(dtype, context, rows, cols, node.out, node.index, context.extra)
    if pivot >= 0:
        for r in range(rows):
            column[r * width + pivot % width] = -rest[r]
            rest[r] += pivots[r]
    for p in range((cols + width - 1) // width):
        shares = vector(dtype, context.shares + p * row, smaller(width, cols - p * width))
        for r in range(rows):
            out = vector(dtype, node.out + (p * rows + r) * row, shares.size)
            for i in range(shares.size):
                out[i] += shares[i] * rest[r]


@inner
def _times_normalise(dtype, context, node):
    """Multiply rows by ``(I - 1 1.T / n - y y.T / n) / s``, the Jacobian of a normalised value y.

    ``second`` is y. Without the mean, ``1 1.T`` is not there.
    """
    source = vector(NODE, node.source, 1)[0]
    rows, cols, centre = node.rows, node.size, source.second
    width, size = panel_width(dtype), itemsize(dtype)
    row = width * size
    means, shares = vector(dtype, context.mean, rows), vector(dtype, context.extra, rows)
    count, factor = means.dtype.type(cols), means.dtype.type(source.number)
    rows_times(dtype, context, rows, cols, node.first, node.second, context.extra)
    if centre:
        rows_times(dtype, context, rows, cols, node.first, centre, context.mean)
    else:
        fill(dtype, context.mean, rows)
    for p in range((cols + width - 1) // width):
        y = vector(dtype, node.second + p * row, smaller(width, cols - p * width))
        for r in range(rows):
            at = (p * rows + r) * row
            g, out = vector(dtype, node.first + at, y.size), vector(dtype, node.out + at, y.size)
            mean, share = means[r] / count, shares[r] / count
            for i in range(y.size):
                out[i] = (g[i] - mean - share * y[i]) * factor


@inner
def _move(dtype, context, node, result):
    """Copy or add columns from ``start`` on to columns from ``to`` on, of panels or of the result."""
    rows, width, size = node.rows, panel_width(dtype), itemsize(dtype)
    row, at = width * size, node.out
    done = 0
    while done < node.size:
        start, to = node.start + done, node.to + done
        piece = smaller(node.size - done, width - start % width)
        source = node.first + start // width * rows * row + start % width * size
        if at:
            piece = smaller(piece, width - to % width)
            target, stride = at + to // width * rows * row + to % width * size, row
        else:
            target, stride = result + to * size, context.n_inputs * size
        for r in range(rows):
            a, b = vector(dtype, source + r * row, piece), vector(dtype, target + r * stride, piece)
            if node.adds:
                for i in range(piece):
                    b[i] += a[i]
            else:
                for i in range(piece):
                    b[i] = a[i]
        done += piece


@inner
def _move_each(dtype, context, node, result):
    """Add columns to the columns of an index, or copy the columns of an index."""
    rows, width, size = node.rows, panel_width(dtype), itemsize(dtype)
    row, index = width * size, integers(node.index, node.size)
    for i in range(node.size):
        start, to = (index[i], i) if node.operation == PICK else (i, index[i])
        source = node.first + start // width * rows * row + start % width * size
        target, stride = node.out + to // width * rows * row + to % width * size, row
        if not node.out:
            target, stride = result + to * size, context.n_inputs * size
        for r in range(rows):
            a, b = vector(dtype, source + r * row, rows), vector(dtype, target + r * stride, rows)
            if node.operation == PICK:
                b[0] = a[0]
            else:
                b[0] += a[0]
