"""The compiled routine: forward, head and backward over packed weights and one thread's context."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import carray, from_dtype, njit, types

from fastjac.kernels.compiling import compiled
from fastjac.kernels.elementwise import IDENTITY, LOG_SOFTMAX, RELU, SOFTMAX, activate, softmax
from fastjac.kernels.packing import CONTEXT, LAYER, STEP
from fastjac.kernels.simd import MR, NV, address, dots, itemsize, panel_width, pointer, prefetch, scale, tile, transpose

_inner = njit(nogil=True, error_model="numpy")
OK, MISMATCH = 0, 1

# The rows of a softmax Jacobian sum to zero: up to this many of them, that of the most probable class
# comes from the others. It collects their errors, and a row of many is not worth that. Nor may it
# spread NaN, where numbers are not finite.
SPARED = 16

SECOND_CACHE = 1 << 18  # bytes that may be counted on to stay in it


@_inner
def _vector(dtype, at, size):
    return carray(pointer(at), size, dtype)


@_inner
def _integers(at, size):
    return carray(pointer(at), size, np.int64)


@_inner
def _block(rows):
    """Return how many rows a tile takes so that the fewest tiles cover ``rows`` evenly."""
    tiles = (rows + MR - 1) // MR
    return (rows + tiles - 1) // tiles


@_inner
def _rows_times(dtype, rows, cols, panels, x, out):
    """Write ``panels @ x`` (rows,) for a panel matrix (rows, cols) and a padded vector."""
    size, width = itemsize(dtype), panel_width(dtype)
    block = _block(rows)
    for start in range(0, rows, block):
        count, at = min(block, rows - start), panels + start * width * size
        dots(dtype, count, (cols + width - 1) // width, at, rows * width * size, x, out + start * size)


@_inner
def _times_rows(dtype, rows, cols, panels, x, index, count, context, out):
    """Write ``sum_k x[k] * panels[index[k], :]`` (padded cols,) for ``count`` of the rows."""
    size, width = itemsize(dtype), panel_width(dtype)
    for p in range((cols + width - 1) // width):
        at = panels + p * rows * width * size
        row = width * size
        tile(dtype, 1, count, x, row, at, row, index, out + p * row, context.panel_rows, 0, 0)


@_inner
def _clear_tail(dtype, at, size):
    """Write zeros from the end of a vector to the end of its last panel."""
    _fill(dtype, at + size * itemsize(dtype), -size % panel_width(dtype))


@_inner
def _times_raw(dtype, context, layer, x, out):
    """Write ``x @ w`` for a ``w`` that is not packed."""
    size, width, cols = itemsize(dtype), panel_width(dtype), layer.fan_out
    if cols >= width:
        for start in range(0, cols, width):
            at = min(start, cols - width) * size  # The last tile overlaps the one before it.
            tile(
                dtype, 1, layer.fan_in, x, width * size, layer.w + at, cols * size, context.units, out + at,
                context.panel_rows, 0, 0,
            )
    else:
        w = _vector(dtype, layer.w, layer.fan_in * cols)
        values, sums = _vector(dtype, x, layer.fan_in), _vector(dtype, out, cols)
        sums[:] = 0
        for n in range(layer.fan_in):
            for h in range(cols):
                sums[h] += values[n] * w[n * cols + h]


@_inner
def _times_w(dtype, context, layer, x, out):
    """Write ``x @ w`` (padded fan_out,)."""
    if layer.raw:
        _times_raw(dtype, context, layer, x, out)
    elif layer.forward:
        _times_rows(
            dtype, layer.fan_in, layer.fan_out, layer.w, x, context.units, layer.fan_in, context, out
        )
        _clear_tail(dtype, out, layer.fan_out)
    else:
        _rows_times(dtype, layer.fan_out, layer.fan_in, layer.w, x, out)


@_inner
def _forward(dtype, context, layers, x):
    """Fill every layer's output, slopes and active units for one sample."""
    _copy(dtype, x, context.n_inputs, context.x)
    at = context.x
    broken = False
    for layer in layers:
        _times_w(dtype, context, layer, at, layer.a)
        at = layer.a
        a, b = _vector(dtype, at, layer.fan_out), _vector(dtype, layer.b, layer.fan_out)
        slope = _vector(dtype, layer.slope, layer.fan_out)
        for i in range(a.size):
            a[i] += b[i]
            broken |= a[i] - a[i] != 0  # infinite or NaN
        activate(layer.activation, layer.parameter, a, slope)
        _compact(layer, slope)
    # A weight that is not finite makes a pre-activation so, even times 0. Then 0 times it is NaN, and
    # no unit may be left out.
    context.finite = not broken
    if broken:
        for layer in layers:
            layer.count = layer.fan_out
            active = _integers(layer.active, layer.fan_out)
            for i in range(active.size):
                active[i] = i


@_inner
def _compact(layer, slope):
    """List the units whose slope is not 0."""
    active = _integers(layer.active, layer.fan_out)
    count = 0
    for i in range(slope.size):
        active[count] = i
        count += slope[i] != 0
    layer.count = count


@_inner
def _forward_block(dtype, context, layers, x):
    """Fill every layer's `block_a` and `block_slope` for a panel's width of samples.

    Samples lie in the lanes: each weight is read once for all of them, and no sum runs across lanes.
    Return whether all pre-activations are finite.
    """
    size, width = itemsize(dtype), panel_width(dtype)
    row, stride = width * size, context.n_inputs * size
    for n in range(0, context.n_inputs, width):
        cols = min(width, context.n_inputs - n)
        _transpose(dtype, x + n * size, stride, width, cols, context.block_x + n * row, row)
    at = context.block_x
    broken = False
    for layer in layers:
        rows = layer.fan_out
        block = _block(rows)
        for start in range(0, rows, block):
            tile(
                dtype, min(block, rows - start), layer.fan_in, layer.w + start * row, rows * row, at, row, context.units,
                layer.block_a, context.panel_rows + 8 * start, 0, 0,
            )
        at = layer.block_a
        a, b = _vector(dtype, at, rows * width), _vector(dtype, layer.b, rows)
        for h in range(rows):
            for i in range(h * width, (h + 1) * width):
                a[i] += b[h]
                broken |= a[i] - a[i] != 0
        activate(layer.activation, layer.parameter, a, _vector(dtype, layer.block_slope, rows * width))
    return not broken


@_inner
def _take(dtype, context, layers, s):
    """Fill the last layer's output and every layer's slopes and active units from sample ``s`` of a block."""
    width = panel_width(dtype)
    for layer in layers:
        slopes = _vector(dtype, layer.block_slope, layer.fan_out * width)
        slope = _vector(dtype, layer.slope, layer.fan_out)
        for i in range(slope.size):
            slope[i] = slopes[i * width + s]
        _compact(layer, slope)
    last = layers[context.n_layers - 1]
    outputs, a = _vector(dtype, last.block_a, last.fan_out * width), _vector(dtype, last.a, last.fan_out)
    for i in range(a.size):
        a[i] = outputs[i * width + s]
    context.finite = True


@_inner
def _sample(dtype, context, layers, x, number, samples, taken, y):
    """Do the forward pass and the head of sample ``number``, in a block where there is a whole one.

    ``taken`` is what the call for the sample before returned, first 0; return the most probable class
    and what to hand to the next call.
    """
    width = panel_width(dtype)
    at = x + number * context.n_inputs * itemsize(dtype)
    if context.blocks and number % width == 0:
        taken = samples - number >= width and _forward_block(dtype, context, layers, at)
    if taken:
        _take(dtype, context, layers, number % width)
    else:
        _forward(dtype, context, layers, at)
    last = layers[context.n_layers - 1]
    return _head(dtype, context, last, y + number * context.n_outputs * itemsize(dtype)), taken


@_inner
def _head(dtype, context, layer, y):
    """Write the outputs, and how the head multiplies the Jacobian; return the largest logit's index p.

    With s the softmax, row m of ``diag(s) - s s.T`` times G is ``s[m] (G[m] - s @ G)``: in general
    ``gain[m] (G[m] - base + shares @ G)`` with gain s, base 0 and shares -s; log_softmax has gain 1, an
    elementwise head no shares. Where s[p] is nearly 1 that cancels for row p. From 1/2 on, row p is the
    pivot: base is G[p], and shares[p] is 1 - s[p], summed from the others.
    """
    z = _vector(dtype, layer.a, layer.fan_out)
    slope = _vector(dtype, layer.slope, layer.fan_out)
    out = _vector(dtype, y, layer.fan_out)
    gain = _vector(dtype, context.gain, layer.fan_out)
    context.pivot = -1
    if layer.activation < SOFTMAX:
        for m in range(z.size):
            out[m], gain[m] = z[m], slope[m]
        return 0
    shares = _vector(dtype, context.shares, layer.fan_out)
    best = softmax(z, shares, out, layer.activation == LOG_SOFTMAX)
    for m in range(z.size):
        gain[m] = shares[m] if layer.activation == SOFTMAX else 1
    rest = z.dtype.type(0)
    for m in range(z.size):
        rest += shares[m] if m != best else 0
        shares[m] = -shares[m]
    if shares[best] <= -0.5:
        context.pivot, shares[best] = best, rest
    return best


@_inner
def _transpose(dtype, source, stride, rows, cols, out, out_stride):
    """Write a (rows, cols) matrix transposed; rows are ``stride`` and ``out_stride`` bytes apart."""
    size, square = itemsize(dtype), panel_width(dtype) // NV
    if rows >= square and cols >= square:
        for i in range(0, rows, square):
            r = min(i, rows - square)  # The last square overlaps the one before it.
            for j in range(0, cols, square):
                c = min(j, cols - square)
                transpose(dtype, source + r * stride + c * size, stride, out + c * out_stride + r * size, out_stride)
    else:
        for r in range(rows):
            values = _vector(dtype, source + r * stride, cols)
            for c in range(cols):
                _vector(dtype, out + c * out_stride + r * size, 1)[0] = values[c]


@_inner
def _left(dtype, context, layer, step, rows):
    """Return panels (m, units) of a step's scalar factor, multiplied by the slopes of its units."""
    width, units = panel_width(dtype), layer.fan_out
    row = width * itemsize(dtype)
    left = step.scalar
    if step.scalar_transposed:
        left = context.left
        for p in range((step.m + width - 1) // width):
            for q in range((units + width - 1) // width):
                k, cols = min(width, units - q * width), min(width, step.m - p * width)
                source = step.scalar + (p * units + q * width) * row
                _transpose(dtype, source, row, k, cols, left + (q * step.m + p * width) * row, row)
    # The active units of these have slope 1.
    if not (context.finite and (layer.activation == RELU or layer.activation == IDENTITY)):
        for q in range((units + width - 1) // width):
            for r in range(rows):
                at = (q * rows + r) * row
                scale(dtype, True, left + at, context.zeros, layer.slope + q * row, context.left + at)
        left = context.left
    return left


@_inner
def _multiply(dtype, context, layer, step, spared, jac):
    """Compute one product of the plan, into panels or, where it has none, into the Jacobian.

    Row ``spared`` of the Jacobian becomes what makes the sum of all rows zero.
    """
    size, width = itemsize(dtype), panel_width(dtype)
    row = width * size
    sparing = step.outputs and spared < step.m
    rows = step.m - 1 if sparing else step.m
    left = _left(dtype, context, layer, step, rows)
    block, panels = _block(rows), (step.n + width - 1) // width
    blocks = (rows + block - 1) // block
    # A panel is used for all rows while it is in the first cache; but where the whole vector factor stays
    # in the second, all panels for some rows, so that the Jacobian is written in a few long runs.
    by_rows = not layer.raw and layer.count * step.n * size <= SECOND_CACHE
    for i in range(blocks if by_rows else panels):
        for j in range(panels if by_rows else blocks):
            t, p = (i, j) if by_rows else (j, i)
            start, cols = t * block, min(width, step.n - p * width)
            count = min(block, rows - start)
            ragged = cols < width and step.out == 0
            # Where the last panel of the Jacobian is narrower than a tile, the tile goes to one side first.
            target = step.out + p * rows * row if step.out else jac + p * row
            out = context.edge if ragged else target
            offsets = context.jac_rows + 8 * start
            if step.out:
                offsets = context.panel_rows + 8 * start
            elif ragged:
                offsets = context.panel_rows
            else:
                # In a batch each Jacobian is new to the caches: ask for the next panel's rows.
                ahead = _integers(offsets, count)
                for r in range(count):
                    for line in range(0, row, 64):
                        prefetch(target + row + ahead[r] + line)
            vector, rest = step.vector + p * layer.fan_out * row, 0
            if layer.raw:
                vector, stride = context.panel, layer.fan_out * size
                if t == 0:
                    _transpose(dtype, layer.w + p * width * stride, stride, cols, layer.fan_out, vector, row)
            if sparing and not step.out:
                rest = context.edge + MR * row if ragged else target + spared * step.n * size
            tile(
                dtype, count, layer.count, left + start * row, rows * row, vector, row, layer.active,
                out, offsets, rest if t else context.zeros, rest,
            )
            if ragged:
                _copy_edge(dtype, out, count, cols, target, context.jac_rows + 8 * start)
                if rest and t == blocks - 1:
                    _copy(dtype, rest, cols, target + spared * step.n * size)


@_inner
def _fill(dtype, at, size):
    """Write ``size`` zeros."""
    values = _vector(dtype, at, size)
    for i in range(size):
        values[i] = 0


@_inner
def _copy(dtype, source, size, target):
    """Copy ``size`` elements."""
    values, copies = _vector(dtype, source, size), _vector(dtype, target, size)
    for i in range(size):
        copies[i] = values[i]


@_inner
def _copy_edge(dtype, edge, rows, cols, out, offsets):
    """Copy the first ``cols`` columns of a tile to where its rows belong."""
    row = panel_width(dtype) * itemsize(dtype)
    offset = _integers(offsets, rows)
    for r in range(rows):
        _copy(dtype, edge + r * row, cols, out + offset[r])


@_inner
def _head_rows(dtype, context, layer, spared):
    """Write the last layer's ``w.T`` less row ``spared``, multiplied by the head from the left, to ``scaled``."""
    size, width, rows = itemsize(dtype), panel_width(dtype), layer.fan_out
    row, pivot = width * size, context.pivot
    if layer.activation >= SOFTMAX:
        _times_rows(dtype, rows, layer.fan_in, layer.w, context.shares, context.units, rows, context, context.extra)
    out = context.scaled
    for p in range((layer.fan_in + width - 1) // width):
        panel, extra, mean = layer.w + p * rows * row, context.extra + p * row, context.mean + p * row
        base = context.zeros if pivot < 0 else panel + pivot * row
        scale(dtype, False, base, extra, context.ones, mean)
        for m in range(rows):
            if m == pivot and m != spared:
                scale(dtype, False, extra, context.zeros, context.gain + m * size, out)
            elif m != spared:
                scale(dtype, False, panel + m * row, mean, context.gain + m * size, out)
            out += row if m != spared else 0


@_inner
def _head_columns(dtype, context, layer, rows, panels):
    """Multiply the columns of a panel matrix (rows, M), a transposed Jacobian, by the head."""
    size, width, cols = itemsize(dtype), panel_width(dtype), layer.fan_out
    extra, mean = _vector(dtype, context.extra, rows), _vector(dtype, context.mean, rows)
    values = _vector(dtype, panels, (cols + width - 1) // width * rows * width)
    gain = _vector(dtype, context.gain, cols)
    pivot = context.pivot
    at_pivot = pivot // width * rows * width + pivot % width
    if layer.activation >= SOFTMAX:
        _rows_times(dtype, rows, cols, panels, context.shares, context.extra)
    for n in range(rows):
        mean[n] = (values[at_pivot + n * width] if pivot >= 0 else 0) - extra[n]
    for p in range((cols + width - 1) // width):
        for n in range(rows):
            at = panels + (p * rows + n) * width * size
            scale(dtype, True, at, context.mean + n * size, context.gain + p * width * size, at)
    if pivot >= 0:
        for n in range(rows):
            values[at_pivot + n * width] = gain[pivot] * extra[n]


@_inner
def _jacobian(dtype, context, layers, steps, best, jac):
    """Multiply the Jacobian out as planned, after `_forward` and `_head`."""
    size, width = itemsize(dtype), panel_width(dtype)
    row = width * size
    last = layers[context.n_layers - 1]
    n_inputs, n_outputs = context.n_inputs, context.n_outputs
    spared = n_outputs
    if context.spares and last.activation == SOFTMAX and 1 < n_outputs <= SPARED and context.finite:
        spared = best
    jac_rows = _integers(context.jac_rows, n_outputs)
    for r in range(n_outputs - (spared < n_outputs)):
        jac_rows[r] = (r + (r >= spared)) * n_inputs * size

    if context.scaled:
        _head_rows(dtype, context, last, spared)
    for i in range(context.n_steps):
        step = steps[i]
        _multiply(dtype, context, layers[step.layer], step, spared, jac)
        if step.head:
            _head_columns(dtype, context, last, step.m, step.out)
    if context.result:
        for p in range((n_outputs + width - 1) // width):
            cols, stride = min(width, n_outputs - p * width), n_inputs * size
            source = context.result + p * n_inputs * row
            _transpose(dtype, source, row, n_inputs, cols, jac + p * width * stride, stride)
    elif context.n_steps == 0:
        for p in range((n_inputs + width - 1) // width):
            _copy_edge(
                dtype, context.scaled + p * n_outputs * row, n_outputs, min(width, n_inputs - p * width),
                jac + p * row, context.jac_rows,
            )


@_inner
def _cotangent(dtype, context, layers, v, out):
    """Write ``v @ jac`` (N,), after `_forward` and `_head`."""
    last = layers[context.n_layers - 1]
    given, gain = _vector(dtype, v, last.fan_out), _vector(dtype, context.gain, last.fan_out)
    shares = _vector(dtype, context.shares, last.fan_out)
    g = _vector(dtype, context.cotangent, last.fan_out)
    pivot, rest = context.pivot, g.dtype.type(0)
    for m in range(g.size):
        g[m] = given[m] * gain[m]
        rest += g[m] if m != pivot else 0
    total = rest
    if pivot >= 0:
        total, g[pivot] = rest + g[pivot], -rest
    for m in range(g.size if last.activation >= SOFTMAX else 0):
        g[m] += shares[m] * total
    for i in range(context.n_layers - 1, -1, -1):
        layer = layers[i]
        index, count = context.units, layer.fan_out
        if i < context.n_layers - 1:
            index, count = layer.active, layer.count
            g, slope = _vector(dtype, context.cotangent, layer.fan_out), _vector(dtype, layer.slope, layer.fan_out)
            for k in range(g.size):
                g[k] *= slope[k]
        if layer.forward:
            _clear_tail(dtype, context.cotangent, layer.fan_out)
            _rows_times(dtype, layer.fan_in, layer.fan_out, layer.w, context.cotangent, context.tangent)
        else:
            _times_rows(
                dtype, layer.fan_out, layer.fan_in, layer.w, context.cotangent, index, count, context,
                context.tangent,
            )
        _copy(dtype, context.tangent, layer.fan_in, context.cotangent)
    _copy(dtype, context.cotangent, context.n_inputs, out)


@_inner
def _tangent(dtype, context, layers, u, out):
    """Write ``jac @ u`` (M,), after `_forward` and `_head`."""
    at, following = context.tangent, context.cotangent
    _copy(dtype, u, context.n_inputs, at)
    _clear_tail(dtype, at, context.n_inputs)
    for i in range(context.n_layers):
        layer = layers[i]
        _times_w(dtype, context, layer, at, following)
        at, following = following, at
        if i < context.n_layers - 1:
            t, slope = _vector(dtype, at, layer.fan_out), _vector(dtype, layer.slope, layer.fan_out)
            for k in range(t.size):
                t[k] *= slope[k]
            _clear_tail(dtype, at, layer.fan_out)
    t, gain = _vector(dtype, at, context.n_outputs), _vector(dtype, context.gain, context.n_outputs)
    shares, result = _vector(dtype, context.shares, t.size), _vector(dtype, out, t.size)
    if layers[context.n_layers - 1].activation >= SOFTMAX:
        base = t[context.pivot] if context.pivot >= 0 else t.dtype.type(0)
        extra = t.dtype.type(0)
        for m in range(t.size):
            t[m] -= base
            extra += shares[m] * t[m]
        for m in range(t.size):
            t[m] += extra
    for m in range(t.size):
        result[m] = gain[m] * t[m]


@_inner
def _disjoint(a, b):
    """Return whether two arrays share no byte."""
    return address(a) + a.size * a.itemsize <= address(b) or address(b) + b.size * b.itemsize <= address(a)


@_inner
def _open(at):
    """Return the context at an address as an array of one, and its layers."""
    contexts = carray(pointer(at), 1, CONTEXT)
    return contexts, carray(pointer(contexts[0].layers), contexts[0].n_layers, LAYER)


def _value(at, x, y):
    """Write ``y`` (B * M,) for ``x`` (B * N,); return `OK` or, with nothing written, `MISMATCH`."""
    contexts, layers = _open(at)
    context = contexts[0]
    samples = x.size // context.n_inputs
    if x.size != samples * context.n_inputs or y.size != samples * context.n_outputs or not _disjoint(x, y):
        return MISMATCH
    taken = False
    for i in range(samples):
        _, taken = _sample(x.dtype, context, layers, address(x), i, samples, taken, address(y))
    return OK


@_inner
def _value_and_jacobian(at, x, y, jac):
    """Write ``y`` (B * M,) and ``jac`` (B * M, N) for ``x`` (B * N,); return as `_value` does."""
    contexts, layers = _open(at)
    context = contexts[0]
    steps = carray(pointer(context.steps), context.n_steps, STEP)
    n_inputs, n_outputs = context.n_inputs, context.n_outputs
    samples = x.size // n_inputs
    if x.size != samples * n_inputs or y.size != samples * n_outputs:
        return MISMATCH
    if jac.shape[0] != y.size or jac.shape[1] != n_inputs:
        return MISMATCH
    if not (_disjoint(x, y) and _disjoint(x, jac) and _disjoint(y, jac)):
        return MISMATCH
    taken = False
    for i in range(samples):
        best, taken = _sample(x.dtype, context, layers, address(x), i, samples, taken, address(y))
        to = address(jac) + i * n_outputs * n_inputs * x.itemsize
        _jacobian(x.dtype, context, layers, steps, best, to)
    return OK


def _vjp(at, x, v, y, product):
    """Write ``y`` (B * M,) and ``v @ jac`` (B * N,) for ``v`` (B * M,); return as `_value` does."""
    contexts, layers = _open(at)
    context = contexts[0]
    n_inputs, n_outputs = context.n_inputs, context.n_outputs
    samples = x.size // n_inputs
    if x.size != samples * n_inputs or y.size != samples * n_outputs:
        return MISMATCH
    if v.size != y.size or product.size != x.size:
        return MISMATCH
    if not (_disjoint(x, y) and _disjoint(v, y) and _disjoint(y, product)):
        return MISMATCH
    if not (_disjoint(x, product) and _disjoint(v, product)):
        return MISMATCH
    taken = False
    for i in range(samples):
        _, taken = _sample(x.dtype, context, layers, address(x), i, samples, taken, address(y))
        inputs, outputs = i * n_inputs * x.itemsize, i * n_outputs * x.itemsize
        _cotangent(x.dtype, context, layers, address(v) + outputs, address(product) + inputs)
    return OK


def _jvp(at, x, u, y, product):
    """Write ``y`` (B * M,) and ``jac @ u`` (B * M,) for ``u`` (B * N,); return as `_value` does."""
    contexts, layers = _open(at)
    context = contexts[0]
    n_inputs, n_outputs = context.n_inputs, context.n_outputs
    samples = x.size // n_inputs
    if x.size != samples * n_inputs or y.size != samples * n_outputs:
        return MISMATCH
    if u.size != x.size or product.size != y.size:
        return MISMATCH
    if not (_disjoint(x, y) and _disjoint(u, y) and _disjoint(y, product)):
        return MISMATCH
    if not (_disjoint(x, product) and _disjoint(u, product)):
        return MISMATCH
    taken = False
    for i in range(samples):
        _, taken = _sample(x.dtype, context, layers, address(x), i, samples, taken, address(y))
        inputs, outputs = i * n_inputs * x.itemsize, i * n_outputs * x.itemsize
        _tangent(x.dtype, context, layers, address(u) + inputs, address(product) + outputs)
    return OK


def _value_and_jacobian_of(at, x, w1, b1, w2, b2, y, jac):
    """Write ``y`` and ``jac`` as `_value_and_jacobian` does, with weights that nobody packed before."""
    contexts, layers = _open(at)
    first, last = layers[0], layers[1]
    if w1.shape != (first.fan_in, first.fan_out) or w2.shape != (last.fan_in, last.fan_out):
        return MISMATCH
    if b1.size != first.fan_out or b2.size != last.fan_out:
        return MISMATCH
    if not (_disjoint(w1, y) and _disjoint(b1, y) and _disjoint(w2, y) and _disjoint(b2, y)):
        return MISMATCH
    if not (_disjoint(w1, jac) and _disjoint(b1, jac) and _disjoint(w2, jac) and _disjoint(b2, jac)):
        return MISMATCH
    first.w, first.b, last.b = address(w1), address(b1), address(b2)
    width, stride = panel_width(x.dtype), last.fan_out * x.itemsize
    for p in range((last.fan_in + width - 1) // width):
        out = last.w + p * width * stride
        _transpose(
            x.dtype, address(w2) + p * width * stride, stride, min(width, last.fan_in - p * width), last.fan_out,
            out, width * x.itemsize,
        )
    return _value_and_jacobian(at, x, y, jac)


# Name -> routine, and the number of dimensions of its arrays: first inputs, then outputs.
_ROUTINES = {
    "value_and_jacobian_of": (_value_and_jacobian_of, (1, 2, 1, 2, 1), (1, 2)),
    "value": (_value, (1,), (1,)),
    "value_and_jacobian": (_value_and_jacobian.py_func, (1,), (1, 2)),
    "vjp": (_vjp, (1, 1), (1, 1)),
    "jvp": (_jvp, (1, 1), (1, 1)),
}


@functools.cache
def routine(name: str, dtype: np.dtype[Any]) -> Any:
    """Return the compiled routine of a Network's method: ``f(address, *inputs, *outputs) -> status``.

    One signature, so that no call ever compiles: C-contiguous arrays of ``dtype``; what is only read
    may be read-only.
    """
    function, inputs, outputs = _ROUTINES[name]
    element = from_dtype(dtype)
    arrays = [types.Array(element, ndim, "C", readonly=True) for ndim in inputs]
    arrays += [types.Array(element, ndim, "C") for ndim in outputs]
    return compiled(function, f"{name}_{dtype}", types.intp(types.intp, *arrays))
