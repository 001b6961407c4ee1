"""Calls of compiled routines whose arrays are given as pointers and shapes."""

# llvmlite and numba are not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

from fastjac.kernels.llvm.vectors import INT

INT32 = ir.IntType(32)


def routine_type(kinds: Sequence[types.Array]) -> ir.FunctionType:
    """Return the type of the machine code of a routine."""
    convention = cpu_target.target_context.call_conv
    return convention.get_function_type(types.intp, [types.intp, *kinds])


def emit_call(
    builder: ir.IRBuilder,
    kinds: Sequence[types.Array],
    routine: ir.Value,
    context: ir.Value,
    shapes: Sequence[Sequence[ir.Value]],
    pointers: Sequence[ir.Value],
) -> ir.Value:
    """Emit a call of ``routine`` with the address ``context`` and arrays of ``shapes``; return the status."""
    arguments = [context]
    for kind, pointer, shape in zip(kinds, pointers, shapes, strict=True):
        arguments.append(_array(builder, kind, pointer, shape))
    target = cpu_target.target_context
    _, status = target.call_conv.call_function(builder, routine, types.intp, [types.intp, *kinds], arguments)
    return builder.trunc(status, INT32)


def _array(
    builder: ir.IRBuilder, kind: types.Array, pointer: ir.Value, shape: Sequence[ir.Value]
) -> ir.Value:
    """Return numba's array of ``shape`` at a pointer that it does not own."""
    target = cpu_target.target_context
    array = cgutils.create_struct_proxy(kind)(target, builder)
    itemsize = INT(kind.dtype.bitwidth // 8)
    strides = [itemsize] if len(shape) == 1 else [builder.mul(shape[1], itemsize), itemsize]
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    array.nitems = functools.reduce(builder.mul, shape)
    array.itemsize = itemsize
    array.data = builder.bitcast(pointer, array.data.type)
    array.shape = cgutils.pack_array(builder, shape)
    array.strides = cgutils.pack_array(builder, strides)
    return array._getvalue()
