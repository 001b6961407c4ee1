"""The forward pass after changes of single inputs: from the first layer's pre-activations on."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import from_dtype, types

from fastjac.kernels.cache import compiled
from fastjac.kernels.elementwise import SOFTMAX, activate
from fastjac.kernels.forward import _head_block, times_w
from fastjac.kernels.llvm.intrinsics import add, address, product, scale, smaller, vector
from fastjac.kernels.llvm.vectors import MR, itemsize, panel_width
from fastjac.kernels.panels import all_finite, blocks_of, copy, exchange, inner, tabulate, vector_bytes
from fastjac.kernels.routines import _open


@inner
def _times_w_block(dtype, context, layer, x):
    """Write ``x @ w + b`` of a layer for a block of samples, one panel (fan_in, samples)."""
    size, width, rows = itemsize(dtype), panel_width(dtype), layer.fan_out
    tabulate(dtype, context.units, layer.fan_in, rows * width * size, False, context.table)
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
            (layer.block_a if block else 0, 0),
        )
    scale(dtype, rows, width, layer.block_a, layer.minus_b, size, context.ones, layer.block_a)


@inner
def _forward_rest(dtype, context, layers):
    """Do the forward pass and the head from the first layer's pre-activations on, in its `block_a`.

    Return whether all pre-activations are finite; where not, nothing is of use.
    """
    for i in range(context.n_layers):
        layer = layers[i]
        if i:
            _times_w_block(dtype, context, layer, layers[i - 1].block_a)
        a = vector(dtype, layer.block_a, layer.fan_out * panel_width(dtype))
        if not all_finite(a):
            return False
        activate(layer.activation, layer.parameter, a, vector(dtype, context.block_slope, a.size))
        if layer.activation >= SOFTMAX:
            _head_block(dtype, context, layer)
    return True


@inner
def _changes(dtype, at, x, to, each, first, count, y):
    """Do what `routine` says; all but the dtype are integers, arrays their addresses."""
    contexts, layers = _open(at)
    context, layer = contexts[0], layers[0]
    size, width, units = itemsize(dtype), panel_width(dtype), layer.fan_out
    row, outputs = width * size, context.n_outputs * size
    out = layers[context.n_layers - 1].block_a
    copy(dtype, x, context.n_inputs, context.x)
    times_w(dtype, context, layers, 0, context.x, layer.a)
    add(dtype, vector_bytes(dtype, units) // size, layer.a, layer.b)
    minus_z = vector(dtype, layer.a, units)
    for h in range(units):
        minus_z[h] = -minus_z[h]
    values, targets = vector(dtype, x, context.n_inputs), vector(dtype, to, context.n_inputs * each)
    change = vector(dtype, context.edge, width)
    for start in range(0, count, width):
        inputs = smaller(width, count - start)
        w = layer.w + (first + start) * units * size
        for k in range(each):
            for i in range(width):
                n = first + start + smaller(i, inputs - 1)
                change[i] = targets[n * each + k] - values[n]
            scale(dtype, units, width, w, context.zeros, 0, context.edge, layer.block_a)
            scale(dtype, units, width, layer.block_a, layer.a, size, context.ones, layer.block_a)
            if not _forward_rest(dtype, context, layers):
                return start
            exchange(
                dtype,
                out,
                row,
                context.n_outputs,
                inputs,
                y + (start * each + k) * outputs,
                each * outputs,
            )
    return count


@functools.cache
def routine(dtype: np.dtype[Any]) -> Any:
    """Return the compiled routine ``f(context, x, to, first, y) -> done``.

    It writes ``y`` (B, K * M) for changes of B inputs from ``first`` on, which begins a panel; ``x`` (N,) is
    the sample, and ``to`` (N, K) what an input is changed to. All weights are packed as w.T: a panel has the
    weights of as many inputs as a block has samples. It returns how many inputs are done: all, or those
    before the first panel with a pre-activation that is not finite.
    """

    def run(at, x, to, first, y):
        return _changes(dtype, at, address(x), address(to), to.shape[1], first, y.shape[0], address(y))

    element = from_dtype(dtype)
    x, to = (types.Array(element, ndim, "C", readonly=True) for ndim in (1, 2))
    y = types.Array(element, 2, "C")
    return compiled(run, f"changes_{dtype}", types.intp(types.intp, x, to, types.intp, y))
