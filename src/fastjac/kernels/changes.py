"""The forward pass after changes of single inputs: from the first layer's pre-activations on."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import types

from fastjac.kernels.blocks import activate_block, times_w_block
from fastjac.kernels.cache import compiled
from fastjac.kernels.forward import fits, times_w
from fastjac.kernels.llvm.intrinsics import add, scale, smaller, vector
from fastjac.kernels.llvm.vectors import itemsize, panel_width
from fastjac.kernels.panels import copy, exchange, inner, vector_bytes
from fastjac.kernels.routines import _open


@inner
def _forward_rest(dtype, context, layers):
    """Do the forward pass and the head from the first layer's pre-activations on, in its `block_a`.

    Return whether all pre-activations are finite and all inputs fit; where not, nothing is of use.
    """
    for i in range(context.n_layers):
        if i:
            layer, at = layers[i], layers[i - 1].block_a
            if not fits(dtype, layer, at, layer.fan_in * panel_width(dtype)):
                return False
            times_w_block(dtype, context, layer, at)
        if not activate_block(dtype, context, layers[i]):
            return False
    return True


@inner
def _changes(dtype, at, x, to, each, first, inputs, y):
    """Write ``y`` (B, K * M) for changes of B inputs from ``first`` on, which begins a panel.

    ``x`` (N,) is the sample, and ``to`` (N, K) what an input is changed to. All weights are packed as w.T: a
    panel has the weights of as many inputs as a block has samples. Return how many inputs are done: all, or
    those before the first panel with a pre-activation that is not finite.
    """
    contexts, layers = _open(at)
    context, layer = contexts[0], layers[0]
    size, width, units = itemsize(dtype), panel_width(dtype), layer.fan_out
    row, out = width * size, layers[context.n_layers - 1].block_a
    sample, values = vector(dtype, x, context.n_inputs), vector(dtype, to, context.n_inputs * each)
    stride = each * context.n_outputs * size
    copy(dtype, x, context.n_inputs, context.x)
    times_w(dtype, context, layers, 0, context.x, layer.a)
    add(dtype, vector_bytes(dtype, units) // size, layer.a, layer.b)
    minus_z = vector(dtype, layer.a, units)
    for h in range(units):
        minus_z[h] = -minus_z[h]
    for start in range(0, inputs, width):
        count = smaller(width, inputs - start)
        w = layer.w + (first + start) * units * size
        for k in range(each):
            change = vector(dtype, context.edge, width)
            for i in range(width):
                n = first + start + smaller(i, count - 1)
                change[i] = values[n * each + k] - sample[n]
            scale(dtype, units, width, w, context.zeros, 0, context.edge, layer.block_a)
            scale(dtype, units, width, layer.block_a, layer.a, size, context.ones, layer.block_a)
            if not _forward_rest(dtype, context, layers):
                return start
            to_y = y + start * stride + k * context.n_outputs * size
            exchange(dtype, out, row, context.n_outputs, count, to_y, stride)
    return inputs


@functools.cache
def routine(dtype: np.dtype[Any]) -> Any:
    """Return the compiled routine ``f(context, x, to, each, first, inputs, y) -> done``; see `_changes`."""

    def run(at, x, to, each, first, inputs, y):
        return _changes(dtype, at, x, to, each, first, inputs, y)

    return compiled(run, f"changes_{dtype}", types.intp(*[types.intp] * 7))
