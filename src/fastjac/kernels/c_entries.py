"""The functions that callers without Python call, with the record of a network as their first argument.

A *record* consists of int64 fields. It tells which code is called, and with which memory. One thread at a
time gets through.
"""

# llvmlite is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Sequence

from llvmlite import ir

from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, INT32
from fastjac.kernels.routines import emit_call, routine_type
from fastjac.kernels.signatures import MISMATCH, VALUE_AND_JACOBIAN

BUSY, CLOSED = 2, 3
# Fields of a record. Callers' own cached code reads those up to OUTPUTS: when they change, so must LAYOUT.
LAYOUT = 0x66617374_6A616302
LAYOUT_AT, PLACE, KEY, FUNCTION, ITEMSIZE, INPUTS, OUTPUTS, STATE, CONTEXT, ROUTINE, FIELDS = range(11)
FREE, _TAKEN, _SHUT = range(3)  # what STATE may be

FUNCTION_TYPE = ir.FunctionType(INT32, [BYTE_POINTER] * 4)


def emit_status(builder: ir.IRBuilder, wrong: ir.Value, status: int) -> None:
    """Emit a return of ``status`` where ``wrong``."""
    with builder.if_then(wrong, likely=False):
        builder.ret(INT32(status))


def emit_any_null(builder: ir.IRBuilder, pointers: Sequence[ir.Value]) -> ir.Value:
    """Return whether one of the pointers is null."""
    return functools.reduce(
        builder.or_, [builder.icmp_unsigned("==", pointer, pointer.type(None)) for pointer in pointers]
    )


def emit_field(builder: ir.IRBuilder, record: ir.Value, field: int) -> ir.Value:
    """Emit the pointer to a field."""
    return builder.gep(builder.bitcast(record, INT.as_pointer()), [INT(field)])


def emit(module: ir.Module, name: str, symbol: str) -> None:
    """Emit a function: ``"call"``, ``int (record, x, y, jac)``, or ``"close"``, ``int (record)``.

    `records` in the embedding says what they do.
    """
    kind = FUNCTION_TYPE if name == "call" else ir.FunctionType(INT32, [BYTE_POINTER])
    function = ir.Function(module, kind, symbol)
    (_emit_call if name == "call" else _emit_close)(function)


def _emit_call(function: ir.Function) -> None:
    builder = ir.IRBuilder(function.append_basic_block())
    record, *pointers = function.args
    emit_status(builder, emit_any_null(builder, function.args), MISMATCH)
    state = emit_field(builder, record, STATE)
    exchanged = builder.cmpxchg(state, INT(FREE), INT(_TAKEN), "acquire", "monotonic")
    old = builder.extract_value(exchanged, 0)
    emit_status(builder, builder.icmp_signed("==", old, INT(_TAKEN)), BUSY)
    emit_status(builder, builder.icmp_signed("!=", old, INT(FREE)), CLOSED)
    context, routine = (builder.load(emit_field(builder, record, field)) for field in (CONTEXT, ROUTINE))
    routine = builder.inttoptr(routine, routine_type().as_pointer())
    (x, y, jac), mode = pointers, VALUE_AND_JACOBIAN
    status = emit_call(builder, routine, context, mode, INT(1), x, None, y, jac)
    builder.store_atomic(INT(FREE), state, "release", align=8)
    builder.ret(status)


def _emit_close(function: ir.Function) -> None:
    builder = ir.IRBuilder(function.append_basic_block())
    state = emit_field(builder, function.args[0], STATE)
    exchanged = builder.cmpxchg(state, INT(FREE), INT(_SHUT), "acq_rel", "monotonic")
    busy = builder.icmp_signed("==", builder.extract_value(exchanged, 0), INT(_TAKEN))
    builder.ret(builder.zext(busy, INT32))
