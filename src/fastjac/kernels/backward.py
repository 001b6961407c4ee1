"""The product of the plan's factors: the Jacobian."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np

from fastjac.kernels.layout import IDENTITY, RELU, SOFTMAX
from fastjac.kernels.llvm.intrinsics import head, integers, larger, product, scale, smaller, vector
from fastjac.kernels.llvm.vectors import MR, TARGET, itemsize, panel_width
from fastjac.kernels.panels import (
    blocks_of,
    copy,
    copy_rows,
    exchange,
    exchange_panels,
    exchange_scaled,
    fill,
    inner,
    rows_times,
    tabulate,
)
from fastjac.kernels.target import SAME_SET, WAYS

# The rows of a softmax Jacobian sum to zero: up to this many of them, that of the most probable class
# comes from the others. It collects their errors, and a row of many is not worth that; without fused
# multiply-adds it collects more. Nor may it spread NaN, where numbers are not finite.
SPARED = 16 if TARGET.fma else 4


@inner
def _left(dtype, context, layer, step, rows):
    """Return panels (m, units) of a step's scalar factor, multiplied by the slopes of its units."""
    width, units = panel_width(dtype), layer.fan_out
    row = width * itemsize(dtype)
    left = step.scalar
    if step.scalar_transposed:
        left = context.left
        exchange_panels(dtype, step.scalar, units, rows, left)
    # The active units of these have slope 1.
    if not (context.finite and (layer.activation == RELU or layer.activation == IDENTITY)):
        for q in range((units + width - 1) // width):
            at = q * rows * row
            scale(dtype, rows, width, left + at, context.zeros, 0, layer.slope + q * row, context.left + at)
        left = context.left
    return left


@inner
def _compact(dtype, context, layer, rows, most, left):
    """Copy the active columns of panels (rows, units) to where each tile finds its own in one piece.

    Return how many bytes a tile has there.
    """
    size, width, count = itemsize(dtype), panel_width(dtype), layer.count
    row = width * size
    tiles = (rows + most - 1) // most
    lower, taller = rows // tiles, rows % tiles
    height = lower + (taller > 0)
    active, skip = integers(layer.active, count), (count + width - 1) // width * height * row
    places = integers(context.table, count)
    for i in range(count):
        places[i] = active[i] // width * rows * width + active[i] % width
    for t in range(tiles):
        first = t * lower + smaller(t, taller)
        for start in range(0, count, width):
            for r in range(lower + (t < taller)):
                values = vector(dtype, left + (first + r) * row, layer.fan_out * rows * width)
                copies = vector(
                    dtype, context.compact + t * skip + (start // width * height + r) * row, width
                )
                for j in range(smaller(width, count - start)):
                    copies[j] = values[places[start + j]]
    return skip


@inner
def multiply(dtype, context, layers, step, spared, jac):
    """Compute one product of the plan, into panels or, where it has none, into the Jacobian.

    Row ``spared`` of the Jacobian becomes what makes the sum of all rows zero.
    """
    size, width, layer = itemsize(dtype), panel_width(dtype), layers[step.layer]
    row = width * size
    sparing = step.outputs and spared < step.m
    rows = step.m - 1 if sparing else step.m
    whole, tail = step.n // width, step.n % width
    most = smaller(MR, WAYS) if step.out == 0 and step.n * size % SAME_SET == 0 else np.intp(MR)
    left, skip, panel = step.scalar, np.intp(0), rows * row
    if not step.scaled:
        left = _left(dtype, context, layer, step, rows)
    gain = layers[step.gain].slope if step.gain >= 0 else 0
    # A left factor that does not stay in the second cache is read again for each panel: in one run, then. One
    # with inactive units is so where it does not stay in the first cache and panels are many.
    is_small = layer.count * step.n * size < context.second_cache // 2
    limit = context.first_cache if layer.flat and not is_small else context.second_cache // 2
    is_compact = context.compact and rows * layer.fan_out * size > limit
    columns = layer.active
    if is_compact:
        columns, skip = context.units, _compact(dtype, context, layer, rows, most, left)
        left, panel = context.compact, skip // larger((layer.count + width - 1) // width, 1)
    table = step.table
    if not table:
        table = context.table
        tabulate(dtype, columns, layer.active, layer.count, panel, table)
    blocks, units = blocks_of(dtype, context, layer.count)
    many = whole if blocks == 1 and not layer.raw else 1
    # Where B stays in the second cache, the Jacobian is written a tile of rows at a time, in long runs: of
    # many rows, the next panel would be in another place of as many pages (2048-8-100: 115 us, in runs 28).
    runs = 1
    if step.out == 0 and many > 1 and is_small and not (sparing or is_compact):
        runs = larger((rows + most - 1) // most, 1)
    p = 0
    while p * width < step.n:
        panels, cols = (smaller(many, whole - p), width) if p < whole else (1, tail)
        right, stride = step.vector + p * layer.fan_out * row, layer.fan_out * size
        if layer.raw:
            right = context.panel
            exchange(dtype, layer.w + p * width * stride, stride, cols, layer.fan_out, right, row)
        # Where the last panel of the Jacobian is narrower than a tile, the tiles go to one side first.
        ragged = cols < width and step.out == 0
        target = step.out + p * rows * row if step.out else jac + p * row
        out = context.edge if ragged else target
        rest = 0
        if sparing and not step.out:
            rest = context.edge + rows * row if ragged else target + spared * step.n * size
        offsets = context.panel_rows if ragged or step.out else context.jac_rows
        for turn in range(larger(blocks, runs)):
            block, run = (turn, 0) if runs == 1 else (0, turn)
            first, is_last = block * units, block == blocks - 1
            begin, end = run * rows // runs, (run + 1) * rows // runs
            product(
                dtype,
                (end - begin, cols, panels, most),
                (smaller(units, layer.count - first), table + 16 * first),
                (left + begin * row, skip),
                (right, layer.fan_out * row),
                (
                    out if is_last else context.partial,
                    rows * row if step.out else row,
                    (offsets if is_last else context.panel_rows) + 8 * begin,
                ),
                (
                    context.partial if block else 0,
                    gain + p * row if gain and is_last else 0,
                    rest if is_last else 0,
                ),
            )
        if ragged:
            copy_rows(dtype, out, rows, cols, target, context.jac_rows)
            if rest:
                copy(dtype, rest, cols, target + spared * step.n * size)
        p += panels


@inner
def head_rows(dtype, context, layer, spared, slope, out, out_panel):
    """Write the last layer's ``w.T``, multiplied by the head from the left, less row ``spared``.

    Its columns are multiplied by the vector ``slope``, if that is not 0. Its panels are ``out_panel`` bytes
    apart.
    """
    width, rows = panel_width(dtype), layer.fan_out
    head(
        dtype,
        rows,
        rows if layer.activation >= SOFTMAX else 0,
        (layer.fan_in + width - 1) // width,
        layer.w,
        context.shares,
        context.gain,
        context.zeros,
        context.pivot,
        spared,
        context.units,
        slope or context.ones,
        width * itemsize(dtype) if slope else 0,
        out,
        out_panel,
    )


@inner
def _column_means(dtype, context, layer, rows, panels):
    """Fill ``extra`` and ``mean`` for the head times panels (rows, M), a transposed Jacobian."""
    size, width, pivot = itemsize(dtype), panel_width(dtype), context.pivot
    extra, mean = vector(dtype, context.extra, rows), vector(dtype, context.mean, rows)
    if layer.activation >= SOFTMAX:
        rows_times(dtype, context, rows, layer.fan_out, panels, context.shares, context.extra)
    base = vector(dtype, panels + pivot // width * rows * width * size, rows * width)
    for n in range(rows):
        mean[n] = (base[n * width + pivot % width] if pivot >= 0 else 0) - extra[n]


@inner
def head_columns(dtype, context, layer, rows, panels):
    """Multiply the columns of a panel matrix (rows, M), a transposed Jacobian, by the head."""
    size, width = itemsize(dtype), panel_width(dtype)
    _column_means(dtype, context, layer, rows, panels)
    for p in range((layer.fan_out + width - 1) // width):
        at = panels + p * rows * width * size
        cols = smaller(width, layer.fan_out - p * width)
        scale(dtype, rows, cols, at, context.mean, size, context.gain + p * width * size, at)
    pivot = context.pivot
    if pivot >= 0:
        gain, extra = vector(dtype, context.gain, layer.fan_out), vector(dtype, context.extra, rows)
        values = vector(dtype, panels + pivot // width * rows * width * size, rows * width)
        for n in range(rows):
            values[n * width + pivot % width] = gain[pivot] * extra[n]


@inner
def _write_columns(dtype, context, layer, rows, panels, jac):
    """Write the Jacobian, multiplied by the head, from its columns: the last N rows of panels (rows, M)."""
    size, width, cols = itemsize(dtype), panel_width(dtype), layer.fan_out
    row, stride, n_inputs = width * size, context.n_inputs * size, context.n_inputs
    skipped = rows - n_inputs
    _column_means(dtype, context, layer, rows, panels)
    for p in range((cols + width - 1) // width):
        exchange_scaled(
            dtype,
            panels + (p * rows + skipped) * row,
            row,
            n_inputs,
            smaller(width, cols - p * width),
            jac + p * width * stride,
            stride,
            context.mean + skipped * size,
            context.gain + p * row,
        )
    pivot = context.pivot
    if pivot >= 0:
        gain, extra = vector(dtype, context.gain, cols), vector(dtype, context.extra, rows)
        values = vector(dtype, jac + pivot * stride, n_inputs)
        for n in range(n_inputs):
            values[n] = gain[pivot] * extra[skipped + n]


@inner
def jacobian(dtype, context, layers, steps, best, jac):
    """Multiply the Jacobian out as planned, after `_forward` and `_head`."""
    size, width = itemsize(dtype), panel_width(dtype)
    row = width * size
    last = layers[context.n_layers - 1]
    n_inputs, n_outputs = context.n_inputs, context.n_outputs
    if n_outputs == 1 and last.activation >= SOFTMAX and context.finite:
        fill(dtype, jac, n_inputs)  # One probability is 1.
        return
    if context.carried:
        _write_columns(dtype, context, last, 1 + n_inputs, context.carried, jac)
        return
    spared = n_outputs
    if context.spares and last.activation == SOFTMAX and 1 < n_outputs <= SPARED and context.finite:
        spared = best
    jac_rows = integers(context.jac_rows, n_outputs)
    kept = n_outputs - (spared < n_outputs)
    for r in range(kept):
        jac_rows[r] = (r + (r >= spared)) * n_inputs * size

    if context.scaled:
        slope = layers[context.n_layers - 2].slope if context.scaled_by_slopes else 0
        head_rows(dtype, context, last, spared, slope, context.scaled, kept * row)
    for i in range(context.n_steps):
        step = steps[i]
        multiply(dtype, context, layers, step, spared, jac)
        if step.head:
            head_columns(dtype, context, last, step.m, step.out)
    if context.result:
        _write_columns(dtype, context, last, n_inputs, context.result, jac)
    elif context.n_steps == 0:
        for p in range((n_inputs + width - 1) // width):
            copy_rows(
                dtype,
                context.scaled + p * n_outputs * row,
                n_outputs,
                smaller(width, n_inputs - p * width),
                jac + p * row,
                context.jac_rows,
            )
