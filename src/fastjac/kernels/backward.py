"""The product of the plan's factors: the Jacobian."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from fastjac.kernels.elementwise import IDENTITY, RELU, SOFTMAX
from fastjac.kernels.llvm.intrinsics import head, scale, tiles
from fastjac.kernels.llvm.vectors import MR, TARGET, itemsize, panel_width
from fastjac.kernels.panels import (
    copy,
    copy_rows,
    exchange,
    exchange_panels,
    inner,
    integers,
    rows_times,
    tile_rows,
    vector,
)

# The rows of a softmax Jacobian sum to zero: up to this many of them, that of the most probable class
# comes from the others. It collects their errors, and a row of many is not worth that; without fused
# multiply-adds it collects more. Nor may it spread NaN, where numbers are not finite.
SPARED = 16 if TARGET.fma else 4

SECOND_CACHE = 1 << 18  # bytes that may be counted on to stay in it
# Rows of the Jacobian that lie a multiple of so many bytes apart share the same few places of the first
# cache: a tile that writes more of them drives its own lines out (2048-8-100: 87 us, with 6 rows 46).
SAME_SET, WAYS = 4096, 6


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
def _multiply(dtype, context, layer, step, spared, jac, ahead):
    """Compute one product of the plan, into panels or, where it has none, into the Jacobian.

    Row ``spared`` of the Jacobian becomes what makes the sum of all rows zero; ``ahead`` is for `tiles`.
    """
    size, width = itemsize(dtype), panel_width(dtype)
    row = width * size
    sparing = step.outputs and spared < step.m
    rows = step.m - 1 if sparing else step.m
    left = _left(dtype, context, layer, step, rows)
    block, whole, tail = tile_rows(rows), step.n // width, step.n % width
    if step.out == 0 and step.n * size % SAME_SET == 0:
        block = min(block, WAYS)
    # A panel is used for all rows while it is in the first cache; but where the whole vector factor stays
    # in the second, all panels for some rows, so that the Jacobian is written in a few long runs.
    many = 1 if layer.raw or layer.count * step.n * size > SECOND_CACHE else whole
    p = 0
    while p * width < step.n:
        panels, cols = (min(many, whole - p), width) if p < whole else (1, tail)
        right, stride = step.vector + p * layer.fan_out * row, layer.fan_out * size
        if layer.raw:
            right = context.panel
            exchange(dtype, layer.w + p * width * stride, stride, cols, layer.fan_out, right, row)
        # Where the last panel of the Jacobian is narrower than a tile, the tile goes to one side first.
        ragged = cols < width and step.out == 0
        target = step.out + p * rows * row if step.out else jac + p * row
        out = context.edge if ragged else target
        rest = 0
        if sparing and not step.out:
            rest = context.edge + MR * row if ragged else target + spared * step.n * size
        for start in range(0, rows, block):
            count = min(block, rows - start)
            offsets = context.jac_rows + 8 * start
            if ragged:
                offsets = context.panel_rows
            elif step.out:
                offsets = context.panel_rows + 8 * start
            tiles(
                dtype,
                count,
                cols,
                panels,
                layer.count,
                left + start * row,
                rows * row,
                right,
                layer.fan_out * row,
                row,
                layer.active,
                out,
                rows * row if step.out else row,
                0 if step.out else ahead,
                offsets,
                start,
                rest,
            )
            if ragged:
                copy_rows(dtype, out, count, cols, target, context.jac_rows + 8 * start)
        if ragged and rest:
            copy(dtype, rest, cols, target + spared * step.n * size)
        p += panels


@inner
def _head_rows(dtype, context, layer, spared):
    """Write the last layer's ``w.T``, multiplied by the head from the left, less row ``spared``."""
    width, rows = panel_width(dtype), layer.fan_out
    row, pivot = width * itemsize(dtype), context.pivot
    shared = rows if layer.activation >= SOFTMAX else 0
    kept = rows - (spared < rows)
    for p in range((layer.fan_in + width - 1) // width):
        panel = layer.w + p * rows * row
        head(
            dtype,
            rows,
            shared,
            panel,
            context.shares,
            context.gain,
            context.zeros if pivot < 0 else panel + pivot * row,
            pivot,
            spared,
            context.units,
            context.scaled + p * kept * row,
        )


@inner
def _column_means(dtype, context, layer, rows, panels):
    """Fill ``extra`` and ``mean`` for the head times panels (rows, M), a transposed Jacobian."""
    size, width, pivot = itemsize(dtype), panel_width(dtype), context.pivot
    extra, mean = vector(dtype, context.extra, rows), vector(dtype, context.mean, rows)
    if layer.activation >= SOFTMAX:
        rows_times(dtype, rows, layer.fan_out, panels, context.shares, context.extra)
    base = vector(dtype, panels + pivot // width * rows * width * size, rows * width)
    for n in range(rows):
        mean[n] = (base[n * width + pivot % width] if pivot >= 0 else 0) - extra[n]


@inner
def _head_columns(dtype, context, layer, rows, panels):
    """Multiply the columns of a panel matrix (rows, M), a transposed Jacobian, by the head."""
    size, width = itemsize(dtype), panel_width(dtype)
    _column_means(dtype, context, layer, rows, panels)
    for p in range((layer.fan_out + width - 1) // width):
        at = panels + p * rows * width * size
        cols = min(width, layer.fan_out - p * width)
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
        exchange(
            dtype,
            panels + (p * rows + skipped) * row,
            row,
            n_inputs,
            min(width, cols - p * width),
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
def jacobian(dtype, context, layers, steps, best, jac, more):
    """Multiply the Jacobian out as planned, after `_forward` and `_head`; ``more`` samples follow."""
    size, width = itemsize(dtype), panel_width(dtype)
    row = width * size
    last = layers[context.n_layers - 1]
    n_inputs, n_outputs = context.n_inputs, context.n_outputs
    if context.carried:
        _write_columns(dtype, context, last, 1 + n_inputs, context.carried, jac)
        return
    spared = n_outputs
    if context.spares and last.activation == SOFTMAX and 1 < n_outputs <= SPARED and context.finite:
        spared = best
    # Each Jacobian of a batch is new to the caches: the lines of the next are asked for while this one is
    # written, or, where that would drive them out of the caches again, those of the next panel but one.
    ahead = n_outputs * n_inputs * size
    if ahead > SECOND_CACHE:
        ahead = 2 * row
    elif not more:
        ahead = 0
    jac_rows = integers(context.jac_rows, n_outputs)
    for r in range(n_outputs - (spared < n_outputs)):
        jac_rows[r] = (r + (r >= spared)) * n_inputs * size

    if context.scaled:
        _head_rows(dtype, context, last, spared)
    for i in range(context.n_steps):
        step = steps[i]
        layer = layers[step.layer]
        _multiply(dtype, context, layer, step, spared, jac, ahead)
        if step.head:
            _head_columns(dtype, context, last, step.m, step.out)
    if context.result:
        _write_columns(dtype, context, last, n_inputs, context.result, jac)
    elif context.n_steps == 0:
        for p in range((n_inputs + width - 1) // width):
            copy_rows(
                dtype,
                context.scaled + p * n_outputs * row,
                n_outputs,
                min(width, n_inputs - p * width),
                jac + p * row,
                context.jac_rows,
            )
