"""The compiled routines: forward, head and backward over packed weights and one call's context."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import carray, from_dtype, types

from fastjac.kernels.backward import jacobian
from fastjac.kernels.cache import compiled
from fastjac.kernels.context import CONTEXT, LAYER, STEP
from fastjac.kernels.forward import sample
from fastjac.kernels.llvm.intrinsics import address, pointer
from fastjac.kernels.llvm.vectors import panel_width
from fastjac.kernels.panels import copy, exchange, inner
from fastjac.kernels.products import cotangent, tangent
from fastjac.kernels.signatures import RAW, SIGNATURES

OK, MISMATCH = 0, 1


@inner
def _disjoint(a, b):
    """Return whether two arrays share no byte."""
    return address(a) + a.size * a.itemsize <= address(b) or address(b) + b.size * b.itemsize <= address(a)


@inner
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
        _, taken = sample(x.dtype, context, layers, address(x), i, samples, taken, address(y), False)
    return OK


@inner
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
        best, taken = sample(x.dtype, context, layers, address(x), i, samples, taken, address(y), True)
        to = address(jac) + i * n_outputs * n_inputs * x.itemsize
        jacobian(x.dtype, context, layers, steps, best, to, samples - i - 1)
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
        _, taken = sample(x.dtype, context, layers, address(x), i, samples, taken, address(y), False)
        inputs, outputs = i * n_inputs * x.itemsize, i * n_outputs * x.itemsize
        cotangent(x.dtype, context, layers, address(v) + outputs, address(product) + inputs)
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
        _, taken = sample(x.dtype, context, layers, address(x), i, samples, taken, address(y), False)
        inputs, outputs = i * n_inputs * x.itemsize, i * n_outputs * x.itemsize
        tangent(x.dtype, context, layers, address(u) + inputs, address(product) + outputs)
    return OK


def _value_and_jacobian_of(at, x, w1, b1, w2, b2, y, jac):
    """Write ``y`` and ``jac`` as `_value_and_jacobian` does, with weights that nobody packed before."""
    _, layers = _open(at)
    first, last = layers[0], layers[1]
    if w1.shape != (first.fan_in, first.fan_out) or w2.shape != (last.fan_in, last.fan_out):
        return MISMATCH
    if b1.size != first.fan_out or b2.size != last.fan_out:
        return MISMATCH
    if not (_disjoint(w1, y) and _disjoint(b1, y) and _disjoint(w2, y) and _disjoint(b2, y)):
        return MISMATCH
    if not (_disjoint(w1, jac) and _disjoint(b1, jac) and _disjoint(w2, jac) and _disjoint(b2, jac)):
        return MISMATCH
    first.w = address(w1)
    copy(x.dtype, address(b1), first.fan_out, first.b)
    copy(x.dtype, address(b2), last.fan_out, last.b)
    width, stride = panel_width(x.dtype), last.fan_out * x.itemsize
    for p in range((last.fan_in + width - 1) // width):
        out = last.w + p * width * stride
        exchange(
            x.dtype,
            address(w2) + p * width * stride,
            stride,
            min(width, last.fan_in - p * width),
            last.fan_out,
            out,
            width * x.itemsize,
        )
    return _value_and_jacobian(at, x, y, jac)


_FUNCTIONS = {
    "value_and_jacobian_of": _value_and_jacobian_of,
    "value": _value,
    "value_and_jacobian": _value_and_jacobian.py_func,
    "vjp": _vjp,
    "jvp": _jvp,
}
NAMES = tuple(_FUNCTIONS)


def array_types(name: str, dtype: np.dtype[Any]) -> list[types.Array]:
    """Return the types of a routine's arrays: C-contiguous, and what is only read may be read-only.

    The samples of a batch follow each other along the first axis.
    """
    signature, element = SIGNATURES.get(name, RAW), from_dtype(dtype)
    arrays = [types.Array(element, len(axes), "C", readonly=True) for axes in signature.inputs.values()]
    return arrays + [types.Array(element, len(axes), "C") for axes in signature.outputs.values()]


@functools.cache
def routine(name: str, dtype: np.dtype[Any]) -> Any:
    """Return the compiled routine of a Network's method: ``f(address, *inputs, *outputs) -> status``.

    One signature, `array_types`, so that no call ever compiles.
    """
    return compiled(_FUNCTIONS[name], f"{name}_{dtype}", types.intp(types.intp, *array_types(name, dtype)))


@functools.cache
def address_of(name: str, dtype: np.dtype[Any]) -> int:
    """Return the address of a routine's machine code, which stays for as long as the process."""
    (compiled,) = routine(name, dtype).overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
