"""Blocks of samples: the forward pass, the head, and the backward pass of many samples at a time."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math

import numpy as np

from fastjac.kernels.activations import activate
from fastjac.kernels.backward import head_rows
from fastjac.kernels.elementwise import exp
from fastjac.kernels.forward import bounded, compact, fits
from fastjac.kernels.layout import LOG_SOFTMAX, SOFTMAX
from fastjac.kernels.llvm.intrinsics import (
    head_lanes,
    integers,
    larger,
    long_row,
    product,
    scale,
    smaller,
    vector,
)
from fastjac.kernels.llvm.vectors import MR, itemsize, panel_width
from fastjac.kernels.panels import (
    all_finite,
    blocks_of,
    copy,
    copy_rows,
    exchange,
    inner,
    tabulate,
    vector_bytes,
)
from fastjac.kernels.products import head_cotangent
from fastjac.kernels.signatures import VALUE, VALUE_AND_JACOBIAN
from fastjac.kernels.target import NV


@inner
def forward_block(dtype, context, layers, x, y, mode):
    """Do the forward pass and the head of a panel's width of samples.

    Samples lie in the lanes: each weight is read once for all of them, and no sum runs across lanes. `slopes`
    and `all_shares` are filled in, if the mode needs them; what `paths_block` needs is in the context. Return
    whether all pre-activations are finite and all inputs fit; where not, nothing else is of use.
    """
    by_paths = mode >= VALUE_AND_JACOBIAN and context.paths != 0
    slopes = mode != VALUE and not by_paths
    size, width = itemsize(dtype), panel_width(dtype)
    row, stride = width * size, context.n_inputs * size
    for n in range(0, context.n_inputs, width):
        cols = smaller(width, context.n_inputs - n)
        exchange(dtype, x + n * size, stride, width, cols, context.block_x + n * row, row)
    at = context.block_x
    for i in range(context.n_layers):
        layer = layers[i]
        if not fits(dtype, layer, at, layer.fan_in * width):
            return False
        times_w_block(dtype, context, layer, at)
        if not activate_block(dtype, context, layer):
            return False
        at, rows = layer.block_a, layer.fan_out
        if slopes:
            exchange(dtype, context.block_slope, row, rows, width, layer.slopes, vector_bytes(dtype, rows))
        elif by_paths and i == 0:
            _times_paths(dtype, context, rows)
    exchange(dtype, at, row, context.n_outputs, width, y, context.n_outputs * size)
    if slopes and layers[context.n_layers - 1].activation >= SOFTMAX:
        stride = vector_bytes(dtype, context.n_outputs)
        exchange(dtype, context.block_shares, row, context.n_outputs, width, context.all_shares, stride)
    context.finite = True
    return True


@inner
def _times_paths(dtype, context, units):
    """Write the Jacobians before the head of a block of samples, from the slopes of the hidden layer."""
    width, rows = panel_width(dtype), context.n_outputs * context.n_inputs
    tabulate(dtype, context.units, context.units, units, rows * width * itemsize(dtype), context.table)
    product(
        dtype,
        (rows, width, 1, MR),
        (units, context.table),
        (context.paths, 0),
        (context.block_slope, 0),
        (context.jacs, 0, context.panel_rows),
        (0, 0, 0),
    )


@inner
def paths_block(dtype, context, layer, out):
    """Multiply the Jacobians of a block of samples by the head, samples in the lanes, and write them."""
    size, width, lanes, outputs = itemsize(dtype), panel_width(dtype), context.samples, layer.fan_out
    row, n_inputs, pivots = width * size, context.n_inputs, context.stacked
    shared = outputs if layer.activation >= SOFTMAX else 0
    best = integers(context.bests, lanes)
    for m in range(shared):
        share = vector(dtype, context.block_shares + m * row, lanes)
        pivot = vector(dtype, pivots + m * row, lanes)
        for i in range(lanes):
            pivot[i] = 1 if m == best[i] and share[i] >= 0 else 0
    head_lanes(
        dtype, n_inputs, outputs, shared, context.jacs, context.block_shares, pivots, context.block_slope
    )
    rows = outputs * n_inputs
    exchange(dtype, context.jacs, row, rows, width, out, rows * size)


@inner
def times_w_block(dtype, context, layer, x):
    """Write ``x @ w + b`` of a layer for a block of samples, one panel (fan_in, samples), to `block_a`."""
    size, width, rows = itemsize(dtype), panel_width(dtype), layer.fan_out
    tabulate(dtype, context.units, context.units, layer.fan_in, rows * width * size, context.table)
    blocks, units = blocks_of(dtype, context, layer.fan_in)
    for block in range(blocks):
        first = block * units
        product(
            dtype,
            (rows, width, 1, MR),
            (smaller(units, layer.fan_in - first), context.table + 16 * first),
            (layer.w, 0),
            (x, 0),
            (layer.block_a, 0, context.panel_rows),
            (layer.block_a if block else layer.block_b, 0, 0),
        )


@inner
def activate_block(dtype, context, layer):
    """Make outputs of a block's pre-activations, slopes and the head; return whether all are finite."""
    a = vector(dtype, layer.block_a, layer.fan_out * panel_width(dtype))
    if not all_finite(a):
        return False
    if layer.activation >= SOFTMAX:
        _head_block(dtype, context, layer)
        return True
    slope = context.block_slope
    activate(layer.function, layer.parameter, layer.block_prelu, layer.block_a, slope, a.size)
    return bounded(dtype, layer, slope, a.size)


@inner
def _head_block(dtype, context, layer):
    """Do for each sample of a block what `head` does with a softmax; all logits are finite."""
    width, lanes, outputs = panel_width(dtype), context.samples, layer.fan_out
    row = width * itemsize(dtype)
    best, largest = integers(context.bests, lanes), vector(dtype, context.edge, lanes)
    rest, total = vector(dtype, context.edge + row, lanes), vector(dtype, context.edge + 2 * row, lanes)
    pivot, log = vector(dtype, context.edge + 3 * row, lanes), vector(dtype, context.edge + 4 * row, lanes)
    for i in range(lanes):
        best[i] = 0
    copy(dtype, layer.block_a, lanes, context.edge)
    for m in range(1, outputs):
        z = vector(dtype, layer.block_a + m * row, lanes)
        for i in range(lanes):
            best[i] = m if z[i] > largest[i] else best[i]
            largest[i] = larger(z[i], largest[i])
    for m in range(outputs):
        z = vector(dtype, layer.block_a + m * row, lanes)
        share = vector(dtype, context.block_shares + m * row, lanes)
        for i in range(lanes):
            share[i] = exp(z[i] - largest[i]) if m != best[i] else 0.0
    at, sums = context.block_shares, context.edge + row
    long_row(dtype, NV, outputs, context.ones, at, row, context.units, sums)
    for i in range(lanes):
        total[i] = 1 + rest[i]
        pivot[i] = (rest[i] if total[i] <= 2 else -1) / total[i]
    logarithmic = layer.activation == LOG_SOFTMAX
    for i in range(lanes if logarithmic else 0):
        log[i] = math.log(total[i])
    for m in range(outputs):
        z = vector(dtype, layer.block_a + m * row, lanes)
        share = vector(dtype, context.block_shares + m * row, lanes)
        gain = vector(dtype, context.block_slope + m * row, lanes)
        for i in range(lanes):
            part = (share[i] if m != best[i] else 1) / total[i]
            share[i] = -part if m != best[i] else pivot[i]
            gain[i] = 1 if logarithmic else part
            z[i] = z[i] - largest[i] - log[i] if logarithmic else part


@inner
def _take_head(dtype, context, layer, s):
    """Point to the head's factors of sample ``s`` of a block; return as `head` does."""
    context.gain = layer.slope = layer.slopes + s * vector_bytes(dtype, layer.fan_out)
    context.shares = context.all_shares + s * vector_bytes(dtype, layer.fan_out)
    context.pivot = -1
    if layer.activation < SOFTMAX:
        return 0
    best = integers(context.bests, s + 1)[s]
    if vector(dtype, context.shares, layer.fan_out)[best] >= 0:  # Negative where it is no pivot.
        context.pivot = best
    return best


@inner
def take(dtype, context, layers, s):
    """Get ready for the backward pass of sample ``s`` of a block alone; return as `head` does."""
    for i in range(context.n_layers - 1):
        layer = layers[i]
        layer.slope = layer.slopes + s * vector_bytes(dtype, layer.fan_out)
        compact(dtype, layer)
    context.carried = 0
    return _take_head(dtype, context, layers[context.n_layers - 1], s)


@inner
def backward_block(dtype, context, layers, given, out):
    """Write the Jacobians of a block's samples or, where ``given`` is not 0, what `cotangent` writes.

    Rows of several samples are multiplied by a layer's weights at once.
    """
    size, width, last = itemsize(dtype), panel_width(dtype), context.n_layers - 1
    row, layer, n_outputs = width * size, layers[last], context.n_outputs
    each = 1 if given else n_outputs
    samples = smaller(context.stack // each, width)
    for start in range(0, width, samples):
        rows = smaller(samples, width - start) * each
        at, following = context.stacked, context.stacked_next
        for s in range(rows // each):
            _take_head(dtype, context, layer, start + s)
            if given:
                head_cotangent(dtype, context, layer, given + (start + s) * n_outputs * size)
                for p in range((n_outputs + width - 1) // width):
                    cols = smaller(width, n_outputs - p * width)
                    copy(dtype, context.cotangent + p * row, cols, at + (p * rows + s) * row)
            else:
                before = layers[last - 1]
                slope = before.slopes + (start + s) * vector_bytes(dtype, before.fan_out)
                head_rows(dtype, context, layer, n_outputs, slope, at + s * each * row, rows * row)
        for i in range(last if given else last - 1, -1, -1):
            tabulate(dtype, context.units, context.units, layers[i].fan_out, rows * row, context.table)
            if i == 0:
                _write_rows(dtype, context, layers[0], rows, at, out + start * each * context.n_inputs * size)
            else:
                panels = (layers[i].fan_in + width - 1) // width
                to = following, rows * row, context.panel_rows
                _times_weights(dtype, context, layers[i], (rows, width, panels, MR), at, np.intp(0), to)
                _scale_rows(dtype, context, layers[i - 1], start, rows, each, following)
                at, following = following, at


@inner
def _scale_rows(dtype, context, layer, start, rows, each, panels):
    """Multiply panels (rows, units) by the slopes of a block's samples, ``each`` rows of every sample."""
    width = panel_width(dtype)
    row = width * itemsize(dtype)
    for s in range(rows // each):
        slope = layer.slopes + (start + s) * vector_bytes(dtype, layer.fan_out)
        for p in range((layer.fan_out + width - 1) // width):
            at = panels + (p * rows + s * each) * row
            scale(dtype, each, width, at, context.zeros, 0, slope + p * row, at)


@inner
def _times_weights(dtype, context, layer, shape, rows, panel, to):
    """Multiply rows by a layer's weights, from a panel of these on, as the context's table says."""
    stride = layer.fan_out * panel_width(dtype) * itemsize(dtype)
    units = layer.fan_out, context.table
    none = np.intp(0)
    product(dtype, shape, units, (rows, none), (layer.w + panel * stride, stride), to, (none, none, none))


@inner
def _write_rows(dtype, context, layer, rows, at, out):
    """Multiply panels (rows, units) by the first layer's weights, into rows (rows, N) of results.

    Tiles write whole vectors. The panel that is narrower comes first: what it writes behind its columns is
    written over, but for the last rows.
    """
    size, width = itemsize(dtype), panel_width(dtype)
    row, lanes, n_inputs = width * size, width // NV, layer.fan_in
    whole, tail, none, one = n_inputs // width, n_inputs % width, np.intp(0), np.intp(1)
    if tail:
        written = lanes if tail <= lanes else width
        rest = smaller(rows, (written - tail + n_inputs - 1) // n_inputs)
        first, to = rows - rest, out + whole * row
        _times_weights(
            dtype, context, layer, (first, tail, one, MR), at, whole, (to, none, context.stack_rows)
        )
        end = context.edge, none, context.panel_rows
        _times_weights(dtype, context, layer, (rest, tail, one, MR), at + first * row, whole, end)
        copy_rows(dtype, context.edge, rest, tail, to + first * n_inputs * size, context.stack_rows)
    _times_weights(dtype, context, layer, (rows, width, whole, MR), at, none, (out, row, context.stack_rows))
