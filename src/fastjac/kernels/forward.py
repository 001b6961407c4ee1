"""The forward pass and the head of one sample: outputs, slopes, active units, how the head multiplies."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math

from fastjac.kernels.activations import activate
from fastjac.kernels.elementwise import exponentials
from fastjac.kernels.layout import EXP, GIVEN, LOG_SOFTMAX, SOFTMAX, SQUARE
from fastjac.kernels.llvm.intrinsics import (
    add,
    divide,
    integers,
    largest,
    long_row,
    nonzero,
    product,
    scale,
    smaller,
    total,
    vector,
)
from fastjac.kernels.llvm.vectors import LONG, itemsize, panel_width
from fastjac.kernels.panels import (
    all_finite,
    all_within,
    clear_tail,
    copy,
    fill,
    inner,
    rows_times,
    tabulate,
    times_rows,
    vector_bytes,
)
from fastjac.kernels.target import NV


@inner
def _times_raw(dtype, context, layer, x, out):
    """Write ``x @ w`` for a ``w`` that is not packed."""
    size, width, cols = itemsize(dtype), panel_width(dtype), layer.fan_out
    lanes = width // NV
    if cols >= lanes:
        vectors = smaller(LONG, cols // lanes)
        for start in range(0, cols, vectors * lanes):
            at = smaller(start, cols - vectors * lanes) * size  # The last row overlaps the one before it.
            long_row(dtype, vectors, layer.fan_in, x, layer.w + at, cols * size, context.units, out + at)
    else:
        w = vector(dtype, layer.w, layer.fan_in * cols)
        values, sums = vector(dtype, x, layer.fan_in), vector(dtype, out, cols)
        for h in range(cols):
            sums[h] = 0
        for n in range(layer.fan_in):
            for h in range(cols):
                sums[h] += values[n] * w[n * cols + h]


@inner
def _units_before(context, layers, number):
    """Return the list and the count of the units before a layer that its forward pass reads."""
    layer = layers[number]
    if layer.skips:
        return layers[number - layer.skips].active, layers[number - layer.skips].count
    return context.units, layer.fan_in


@inner
def times_w(dtype, context, layers, number, x, out):
    """Write ``x @ w`` (padded fan_out,) of a layer, with what the layer before it gives for ``x``."""
    layer = layers[number]
    if layer.raw:
        _times_raw(dtype, context, layer, x, out)
    elif layer.rows:
        index, count = _units_before(context, layers, number)
        times_rows(dtype, layer.fan_in, layer.fan_out, layer.rows, x, index, count, out)
        clear_tail(dtype, out, layer.fan_out)
    else:
        rows_times(dtype, context, layer.fan_out, layer.fan_in, layer.w, x, out)


@inner
def fits(dtype, layer, x, size):
    """Return whether a layer of merged maps gives what they would for the inputs ``x`` (size,)."""
    return layer.bound == 0 or all_within(dtype, x, size, layer.bound)


@inner
def _through_given(dtype, layer, x):
    """Write what a layer's maps give one after the other, but for the last bias; return where that is.

    A map that overflows, or gets NaN or infinity, makes of it what merged weights would not.
    """
    maps = vector(GIVEN, layer.given, layer.n_given)
    for i in range(maps.size):
        given, values = maps[i], vector(dtype, x, maps[i].fan_in)
        x = given.z if i < maps.size - 1 else layer.a
        fill(dtype, x, given.fan_out)
        z, b = vector(dtype, x, given.fan_out), vector(dtype, given.b, given.fan_out)
        for n in range(values.size):
            row = vector(dtype, given.w + n * z.size * itemsize(dtype), z.size)
            for h in range(z.size):
                z[h] += values[n] * row[h]
        for h in range(z.size if i < maps.size - 1 else 0):
            z[h] += b[h]
    return maps[maps.size - 1].b


@inner
def _forward(dtype, context, layers, x):
    """Fill every layer's output, slopes and active units for one sample."""
    copy(dtype, x, context.n_inputs, context.x)
    at = context.x
    finite = True
    for i in range(context.n_layers):
        layer = layers[i]
        bias = layer.b
        if fits(dtype, layer, at, layer.fan_in):
            times_w(dtype, context, layers, i, at, layer.a)
        else:
            bias = _through_given(dtype, layer, at)
        at = layer.a
        finite &= activate_layer(dtype, layer, bias)
        if i < context.n_layers - 1:
            compact(dtype, layer)
    # A weight that is not finite makes a pre-activation so, even times 0. Then 0 times it is NaN, and
    # no unit may be left out.
    context.finite = finite
    if not finite:
        leave_out_none(layers)


@inner
def leave_out_none(layers):
    """List all units of all layers as active."""
    for layer in layers:
        layer.count = layer.fan_out
        active = integers(layer.active, layer.fan_out)
        for i in range(active.size):
            active[i] = i


@inner
def _carry(dtype, context, layers, x):
    """Do what `_forward` does, and carry along the tangents of all inputs, each weight read once for all.

    Return whether all pre-activations are finite and all inputs fit; where not, nothing is of use.
    """
    size, width, rows = itemsize(dtype), panel_width(dtype), 1 + context.n_inputs
    row = width * size
    panel = rows * row
    at, following = context.tangents, context.following
    last = context.n_layers - 1
    copy(dtype, x, context.n_inputs, context.x)
    for i in range(context.n_layers):
        layer = layers[i]
        if not fits(dtype, layer, layers[i - 1].a if i else context.x, layer.fan_in):
            return False
        if i == 0:
            times_w(dtype, context, layers, i, context.x, layer.a)
        else:
            index, count = _units_before(context, layers, i)
            # Wider layers have written behind the columns of a narrower one, and the head reads zeros there.
            if i == last:
                following = context.outcome
            tabulate(dtype, index, index, count, panel, context.table)
            whole, tail = layer.fan_out // width, layer.fan_out % width
            for first, panels, cols in ((0, whole, width), (whole, smaller(tail, 1), tail)):
                # One tile reads each weight once.
                product(
                    dtype,
                    (rows, cols, panels, rows),
                    (count, context.table),
                    (at, 0),
                    (layer.across + first * layer.fan_in * row, layer.fan_in * row),
                    (following + first * panel, panel, context.panel_rows),
                    (0, 0, 0),
                )
            at, following = following, at
            for p in range(whole + smaller(tail, 1)):
                copy(dtype, at + p * panel, smaller(width, layer.fan_out - p * width), layer.a + p * row)
        if not activate_layer(dtype, layer, layer.b):
            return False
        if i < last:
            compact(dtype, layer)
            for p in range((layer.fan_out + width - 1) // width):
                to = at + p * panel
                # The first layer's sums have w itself for tangents.
                sums = to + row if i else layer.across + p * layer.fan_in * row
                copy(dtype, layer.a + p * row, width, to)
                scale(dtype, rows - 1, width, sums, context.zeros, 0, layer.slope + p * row, to + row)
    context.carried, context.finite = at, True
    return True


@inner
def activate_layer(dtype, layer, bias):
    """Make a layer's outputs and slopes from the products in ``a``; return whether their sums are finite."""
    finite = add(dtype, vector_bytes(dtype, layer.fan_out) // itemsize(dtype), layer.a, bias)
    if layer.function:
        activate(layer.function, layer.parameter, layer.prelu, layer.a, layer.slope, layer.fan_out)
    return finite and bounded(dtype, layer, layer.slope, layer.fan_out)


@inner
def bounded(dtype, layer, slope, size):
    """Return whether the slopes at finite pre-activations are finite: 0 times an infinite one is NaN."""
    grows = layer.activation == EXP or layer.activation == SQUARE
    return not grows or all_finite(vector(dtype, slope, size))


@inner
def compact(dtype, layer):
    """List the units whose slope is not 0, where the activation has a flat part."""
    if not layer.flat:
        return
    size = vector_bytes(dtype, layer.fan_out) // itemsize(dtype)
    layer.count = nonzero(dtype, size, layer.slope, layer.active)


@inner
def sample(dtype, context, layers, x, y, carries):
    """Do the forward pass and the head of one sample; return the most probable class.

    With ``carries`` it may carry the Jacobian along, and leaves it where `jacobian` looks for it.
    """
    context.carried = 0
    if not (carries and context.tangents and _carry(dtype, context, layers, x)):
        _forward(dtype, context, layers, x)
    return head(dtype, context, layers[context.n_layers - 1], y)


@inner
def head(dtype, context, layer, y):
    """Write the outputs, and how the head multiplies the Jacobian; return the largest logit's index p.

    With s the softmax, row m of ``diag(s) - s s.T`` times G is ``s[m] (G[m] - s @ G)``: in general
    ``gain[m] (G[m] - base + shares @ G)`` with gain s, base 0 and shares -s; log_softmax has gain 1, an
    elementwise head no shares. Where s[p] is nearly 1 that cancels for row p. From 1/2 on, row p is the
    pivot: base is G[p], and shares[p] is 1 - s[p], summed from the others.
    """
    context.pivot = -1
    if layer.activation < SOFTMAX:
        copy(dtype, layer.a, layer.fan_out, y)  # The gain is the slope, and lies where that does.
        return 0
    width = panel_width(dtype)
    lanes = width // NV
    size = (layer.fan_out + lanes - 1) // lanes * lanes
    z, out = vector(dtype, layer.a, size), vector(dtype, y, layer.fan_out)
    gain, shares = vector(dtype, context.gain, size), vector(dtype, context.shares, size)
    best, top = largest(dtype, layer.fan_out, layer.a)
    exponentials(z, layer.fan_out, best, top, shares)
    # What is left beside the largest, which is 1 unless it is not finite.
    rest = total(dtype, size, context.shares)
    first = top - top + 1
    whole = first + rest
    divide(dtype, size, context.shares, whole, context.gain)
    copy(dtype, context.gain, layer.fan_out, y)
    share = first / whole
    out[best] = gain[best] = share
    shares[best] = -share
    if share >= 0.5:
        context.pivot, shares[best] = best, rest / whole
    if layer.activation == LOG_SOFTMAX:
        log_total = z.dtype.type(math.log(whole))
        for m in range(out.size):
            out[m], gain[m] = z[m] - top - log_total, 1
    return best
