"""Products of the Jacobian with one vector from either side."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np

from fastjac.kernels.forward import leave_out_none, times_w
from fastjac.kernels.layout import SOFTMAX
from fastjac.kernels.llvm.intrinsics import vector
from fastjac.kernels.panels import all_within, clear_tail, copy, inner, rows_times, times_rows


@inner
def see_nan(dtype, layers, at, size):
    """List all units as active if a vector has NaN: 0 times that is NaN, also where no unit is active."""
    if not all_within(dtype, at, size, np.inf):
        leave_out_none(layers)


@inner
def head_cotangent(dtype, context, layer, v):
    """Write ``v`` times the head, the last layer's cotangent of its pre-activations, to `cotangent`."""
    given, gain = vector(dtype, v, layer.fan_out), vector(dtype, context.gain, layer.fan_out)
    shares = vector(dtype, context.shares, layer.fan_out)
    g = vector(dtype, context.cotangent, layer.fan_out)
    pivot, rest = context.pivot, g.dtype.type(0)
    for m in range(g.size):
        g[m] = given[m] * gain[m]
        rest += g[m] if m != pivot else 0
    total = rest
    if pivot >= 0:
        total, g[pivot] = rest + g[pivot], -rest
    for m in range(g.size if layer.activation >= SOFTMAX else 0):
        g[m] += shares[m] * total


@inner
def cotangent(dtype, context, layers, v, out):
    """Write ``v @ jac`` (N,), after `_forward` and `_head`."""
    head_cotangent(dtype, context, layers[context.n_layers - 1], v)
    for i in range(context.n_layers - 1, -1, -1):
        layer = layers[i]
        index, count = context.units, layer.fan_out
        if i < context.n_layers - 1:
            index, count = layer.active, layer.count
            g, slope = (
                vector(dtype, context.cotangent, layer.fan_out),
                vector(dtype, layer.slope, layer.fan_out),
            )
            for k in range(g.size):
                g[k] *= slope[k]
        if layer.forward:
            clear_tail(dtype, context.cotangent, layer.fan_out)
            rows_times(
                dtype, context, layer.fan_in, layer.fan_out, layer.w, context.cotangent, context.tangent
            )
        else:
            times_rows(
                dtype,
                layer.fan_out,
                layer.fan_in,
                layer.w,
                context.cotangent,
                index,
                count,
                context.tangent,
            )
        copy(dtype, context.tangent, layer.fan_in, context.cotangent)
    copy(dtype, context.cotangent, context.n_inputs, out)


@inner
def tangent(dtype, context, layers, u, out):
    """Write ``jac @ u`` (M,), after `_forward` and `_head`."""
    at, following = context.tangent, context.cotangent
    copy(dtype, u, context.n_inputs, at)
    clear_tail(dtype, at, context.n_inputs)
    for i in range(context.n_layers):
        layer = layers[i]
        times_w(dtype, context, layers, i, at, following)
        at, following = following, at
        if i < context.n_layers - 1:
            t, slope = vector(dtype, at, layer.fan_out), vector(dtype, layer.slope, layer.fan_out)
            for k in range(t.size):
                t[k] *= slope[k]
            clear_tail(dtype, at, layer.fan_out)
    t, gain = vector(dtype, at, context.n_outputs), vector(dtype, context.gain, context.n_outputs)
    shares, result = vector(dtype, context.shares, t.size), vector(dtype, out, t.size)
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
