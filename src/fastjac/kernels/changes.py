"""The forward pass after changes of single inputs: from the first layer's pre-activations on."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import from_dtype, types

from fastjac.kernels.cache import compiled
from fastjac.kernels.forward import activate_block, fits, times_w, times_w_block
from fastjac.kernels.llvm.intrinsics import add, address, scale, smaller, vector
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


def _changes(at, x, to, first, y):
    """Write ``y`` (B, K * M) for changes of B inputs from ``first`` on, which begins a panel.

    ``x`` (N,) is the sample, and ``to`` (N, K) what an input is changed to. All weights are packed as w.T: a
    panel has the weights of as many inputs as a block has samples. Return how many inputs are done: all, or
    those before the first panel with a pre-activation that is not finite.
    """
    contexts, layers = _open(at)
    context, layer, dtype = contexts[0], layers[0], x.dtype
    size, width, units = itemsize(dtype), panel_width(dtype), layer.fan_out
    row, out = width * size, layers[context.n_layers - 1].block_a
    copy(dtype, address(x), x.size, context.x)
    times_w(dtype, context, layers, 0, context.x, layer.a)
    add(dtype, vector_bytes(dtype, units) // size, layer.a, layer.b)
    minus_z = vector(dtype, layer.a, units)
    for h in range(units):
        minus_z[h] = -minus_z[h]
    for start in range(0, len(y), width):
        inputs = smaller(width, len(y) - start)
        w = layer.w + (first + start) * units * size
        for k in range(to.shape[1]):
            change = vector(dtype, context.edge, width)
            for i in range(width):
                n = first + start + smaller(i, inputs - 1)
                change[i] = to[n, k] - x[n]
            scale(dtype, units, width, w, context.zeros, 0, context.edge, layer.block_a)
            scale(dtype, units, width, layer.block_a, layer.a, size, context.ones, layer.block_a)
            if not _forward_rest(dtype, context, layers):
                return start
            outputs = y[start, k * context.n_outputs :]
            exchange(dtype, out, row, context.n_outputs, inputs, address(outputs), y.shape[1] * size)
    return len(y)


@functools.cache
def routine(dtype: np.dtype[Any]) -> Any:
    """Return the compiled routine: ``f(address, x, to, first, y) -> done``."""
    element = from_dtype(dtype)
    x, to = (types.Array(element, ndim, "C", readonly=True) for ndim in (1, 2))
    y = types.Array(element, 2, "C")
    return compiled(_changes, f"changes_{dtype}", types.intp(types.intp, x, to, types.intp, y))
