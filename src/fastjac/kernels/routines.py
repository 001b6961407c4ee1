"""The compiled routine: forward, head and backward over packed weights and one call's context."""

# Compiled code carries no annotations: numba's types come from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target

from fastjac.kernels import cache
from fastjac.kernels.backward import jacobian
from fastjac.kernels.blocks import backward_block, forward_block, paths_block, take
from fastjac.kernels.forward import sample
from fastjac.kernels.layout import CONTEXT, LAYER, NODE, STEP
from fastjac.kernels.llvm.intrinsics import integers, smaller, vector
from fastjac.kernels.llvm.vectors import INT, INT32, itemsize, panel_width
from fastjac.kernels.nodes import evaluate, walk
from fastjac.kernels.panels import all_finite, copy, exchange, inner
from fastjac.kernels.products import cotangent, see_nan, tangent
from fastjac.kernels.signatures import (
    JVP,
    MISMATCH,
    OK,
    VALUE,
    VALUE_AND_JACOBIAN,
    VALUE_AND_JACOBIAN_OF,
    VJP,
)

_ARGUMENTS = [types.intp] * 7


@inner
def _disjoint(a, a_size, b, b_size):
    """Return whether two ranges of memory share no byte."""
    return a + a_size <= b or b + b_size <= a


@inner
def _open(at):
    """Return the context at an address as an array of one, and its layers."""
    contexts = vector(CONTEXT, at, 1)
    return contexts, vector(LAYER, contexts[0].layers, contexts[0].n_layers)


@inner
def _apart(a, a_size, y, y_size, out, out_size):
    """Return whether a range shares no byte with what is written."""
    return _disjoint(a, a_size, y, y_size) and _disjoint(a, a_size, out, out_size)


@inner
def _take_weights(dtype, layers, given, y, y_size, out, out_size):
    """Take w1, b1, w2 and b2, whose addresses are at ``given``, if they are `_apart`; return whether."""
    first, last, size = layers[0], layers[1], itemsize(dtype)
    weights = integers(given, 4)
    w1, b1, w2, b2 = weights[0], weights[1], weights[2], weights[3]
    stride = last.fan_out * size
    if not (
        _apart(w1, first.fan_in * first.fan_out * size, y, y_size, out, out_size)
        and _apart(b1, first.fan_out * size, y, y_size, out, out_size)
        and _apart(w2, last.fan_in * stride, y, y_size, out, out_size)
        and _apart(b2, stride, y, y_size, out, out_size)
    ):
        return False
    first.w = w1
    copy(dtype, b1, first.fan_out, first.b)
    copy(dtype, b2, last.fan_out, last.b)
    width = panel_width(dtype)
    for p in range((last.fan_in + width - 1) // width):
        at, to = w2 + p * width * stride, last.w + p * width * stride
        exchange(dtype, at, stride, smaller(width, last.fan_in - p * width), last.fan_out, to, width * size)
    return True


@inner
def _sizes(dtype, context, mode):
    """Return the bytes of one sample's inputs, outputs, what else is given, and what else is written."""
    inputs, outputs = context.n_inputs * itemsize(dtype), context.n_outputs * itemsize(dtype)
    given, out = 0, context.n_outputs * inputs
    if mode == VALUE:
        out = 0
    elif mode == VJP:
        given, out = outputs, inputs
    elif mode == JVP:
        given, out = inputs, outputs
    return inputs, outputs, given, out


@inner
def _all_apart(sizes, samples, x, given, y, out):
    """Return whether nothing that is written overlaps anything else."""
    of_x, of_y, of_given, of_out = sizes
    y_size, out_size = samples * of_y, samples * of_out
    return (
        _disjoint(y, y_size, out, out_size)
        and _apart(x, samples * of_x, y, y_size, out, out_size)
        and _apart(given, samples * of_given, y, y_size, out, out_size)
    )


@inner
def _run(dtype, at, mode, samples, x, given, y, out):
    """Do what the mode says with B samples; return `OK` or, with nothing written, `MISMATCH`.

    That is to write ``y`` (B * M,) for ``x`` (B * N,) and, but for the value alone, ``out``: the Jacobians
    (B * M, N), with weights whose addresses are at ``given`` in the last of the modes, or ``given @ jac``
    (B * N,), or ``jac @ given`` (B * M,).
    """
    contexts, layers = _open(at)
    context = contexts[0]
    steps = vector(STEP, context.steps, context.n_steps)
    sizes = _sizes(dtype, context, mode)
    if not _all_apart(sizes, samples, x, given, y, out):
        return MISMATCH
    of_x, of_y, of_given, of_out = sizes
    if mode == VALUE_AND_JACOBIAN_OF and not _take_weights(
        dtype, layers, given, y, samples * of_y, out, samples * of_out
    ):
        return MISMATCH
    jacobians, width, i = mode >= VALUE_AND_JACOBIAN, panel_width(dtype), 0
    while i < samples:
        end = smaller(i + width, samples)
        block = context.blocks and end - i == width
        block = block and forward_block(dtype, context, layers, x + i * of_x, y + i * of_y, mode)
        rows = given + i * of_given if mode == VJP else np.intp(0)
        stacks = context.stacks != 0 if jacobians else mode == VJP
        if block and mode == VALUE:
            i = end
        elif block and jacobians and context.paths:
            paths_block(dtype, context, layers[context.n_layers - 1], out + i * of_out)
            i = end
        # Alone, a sample leaves inactive units out: 0 times infinity is NaN.
        elif block and stacks and (not rows or all_finite(vector(dtype, rows, width * context.n_outputs))):
            backward_block(dtype, context, layers, rows, out + i * of_out)
            i = end
        while i < end:
            if block:
                best = take(dtype, context, layers, i % width)
            else:
                best = sample(dtype, context, layers, x + i * of_x, y + i * of_y, jacobians)
            if mode == VJP:
                see_nan(dtype, layers, given + i * of_given, context.n_outputs)
                cotangent(dtype, context, layers, given + i * of_given, out + i * of_out)
            elif mode == JVP:
                see_nan(dtype, layers, given + i * of_given, context.n_inputs)
                tangent(dtype, context, layers, given + i * of_given, out + i * of_out)
            elif jacobians:
                jacobian(dtype, context, layers, steps, best, out + i * of_out)
            i += 1
    return OK


@inner
def _run_graph(dtype, at, mode, samples, x, given, y, out):
    """Do what `_run` does, with the tapes of a graph."""
    contexts, layers = _open(at)
    context = contexts[0]
    steps = vector(STEP, context.steps, context.n_steps)
    sizes = _sizes(dtype, context, mode)
    if not _all_apart(sizes, samples, x, given, y, out):
        return MISMATCH
    of_x, of_y, of_given, of_out = sizes
    for i in range(samples):
        evaluate(dtype, context, layers, x + i * of_x, y + i * of_y)
        tape, count = context.plain_tape, context.n_plain_tape
        if mode == VALUE:
            continue
        if mode == VJP:
            see_nan(dtype, layers, given + i * of_given, context.n_outputs)
            copy(dtype, given + i * of_given, context.n_outputs, context.cotangent)
            tape, count = context.vjp_tape, context.n_vjp_tape
        elif mode == JVP:
            see_nan(dtype, layers, given + i * of_given, context.n_inputs)
            copy(dtype, given + i * of_given, context.n_inputs, context.tangent)
            tape, count = context.jvp_tape, context.n_jvp_tape
        elif context.finite:
            tape, count = context.jacobian_tape, context.n_jacobian_tape
        walk(dtype, context, layers, steps, vector(NODE, tape, count), out + i * of_out)
    return OK


@functools.cache
def routine(dtype: np.dtype[Any], is_graph: bool = False) -> Any:
    """Return the compiled routine ``f(context, mode, samples, x, given, y, out) -> status``.

    All arguments are integers: addresses, and a number of samples; see `_run`. Those that a mode has no use
    for are 0. Graphs have a routine of their own, so that other networks need not wait until it is compiled.
    """
    inside = _run_graph if is_graph else _run

    def run(at, mode, samples, x, given, y, out):
        return inside(dtype, at, mode, samples, x, given, y, out)

    name = f"{'graph_' * is_graph}routine_{dtype}"
    return cache.compiled(run, name, types.intp(*_ARGUMENTS), is_slow=True)


def routine_type() -> ir.FunctionType:
    """Return the type of the routine's machine code."""
    return cpu_target.target_context.call_conv.get_function_type(types.intp, _ARGUMENTS)


def emit_call(
    builder: ir.IRBuilder,
    routine: ir.Value,
    context: ir.Value,
    mode: int,
    samples: ir.Value,
    x: ir.Value,
    given: ir.Value | None,
    y: ir.Value,
    out: ir.Value | None,
) -> ir.Value:
    """Emit a call of the routine, with pointers for the addresses that it takes; return the status."""
    addresses = [
        INT(0) if pointer is None else builder.ptrtoint(pointer, INT) for pointer in (x, given, y, out)
    ]
    arguments = [context, INT(mode), samples, *addresses]
    convention = cpu_target.target_context.call_conv
    _, status = convention.call_function(builder, routine, types.intp, _ARGUMENTS, arguments)
    return builder.trunc(status, INT32)
