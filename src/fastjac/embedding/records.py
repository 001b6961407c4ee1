"""The records that callers without Python hand over for a network, and the C functions that take them.

A *record* consists of int64 fields. It tells which code is called, and with which
memory. One thread at a time gets through.
"""

# numba and llvmlite are not typed.
# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numpy.typing import NDArray

from fastjac.kernels import machine_code
from fastjac.kernels.cache import library_of
from fastjac.kernels.context import Context
from fastjac.kernels.contexts import Weights
from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, INT32
from fastjac.kernels.routines import emit_call, routine_type
from fastjac.kernels.signatures import MISMATCH, VALUE_AND_JACOBIAN, symbol_of

BUSY, CLOSED = 2, 3
# Fields of a record. Callers' own cached code reads those up to OUTPUTS: when they change, so must LAYOUT.
LAYOUT = 0x66617374_6A616302
LAYOUT_AT, PLACE, KEY, FUNCTION, ITEMSIZE, INPUTS, OUTPUTS, STATE, CONTEXT, ROUTINE, FIELDS = range(11)
_FREE, _TAKEN, _SHUT = range(3)  # what STATE may be

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


def emit(module: ir.Module, dtype: np.dtype[Any]) -> None:
    """Emit ``int call(record, x, y, jac)`` and ``int close(record)``."""
    function = ir.Function(module, FUNCTION_TYPE, symbol_of("record", "call", dtype))
    builder = ir.IRBuilder(function.append_basic_block())
    record, *pointers = function.args
    emit_status(builder, emit_any_null(builder, function.args), MISMATCH)
    state = emit_field(builder, record, STATE)
    exchanged = builder.cmpxchg(state, INT(_FREE), INT(_TAKEN), "acquire", "monotonic")
    old = builder.extract_value(exchanged, 0)
    emit_status(builder, builder.icmp_signed("==", old, INT(_TAKEN)), BUSY)
    emit_status(builder, builder.icmp_signed("!=", old, INT(_FREE)), CLOSED)
    context, routine = (builder.load(emit_field(builder, record, field)) for field in (CONTEXT, ROUTINE))
    routine = builder.inttoptr(routine, routine_type().as_pointer())
    (x, y, jac), mode = pointers, VALUE_AND_JACOBIAN
    status = emit_call(builder, routine, context, mode, INT(1), x, None, y, jac)
    builder.store_atomic(INT(_FREE), state, "release", align=8)
    builder.ret(status)

    function = ir.Function(
        module, ir.FunctionType(INT32, [BYTE_POINTER]), symbol_of("record", "close", dtype)
    )
    builder = ir.IRBuilder(function.append_basic_block())
    state = emit_field(builder, function.args[0], STATE)
    exchanged = builder.cmpxchg(state, INT(_FREE), INT(_SHUT), "acq_rel", "monotonic")
    busy = builder.icmp_signed("==", builder.extract_value(exchanged, 0), INT(_TAKEN))
    builder.ret(builder.zext(busy, INT32))


def _address(name: str, dtype: np.dtype[Any]) -> int:
    """Return the address of the machine code of one of the two functions."""
    if address := machine_code.shipped("record", name, dtype):
        return address
    library = library_of(f"fastjac.record.{dtype}", lambda module: emit(module, dtype), __name__)
    return int(library.get_pointer_to_function(symbol_of("record", name, dtype)))


class Functions:
    """The C functions of one dtype, which stay for as long as the process.

    Attributes
    ----------
    call : int
        Address of ``int (record, x, y, jac)``.
    close : callable
        ``close(record)`` refuses all calls from then on, or returns true where one is running.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.call, close = (_address(name, dtype) for name in ("call", "close"))
        self.close: Callable[[int], int] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(close)


@global_compiler_lock
@functools.cache
def functions(dtype: np.dtype[Any]) -> Functions:
    """Return the C functions of one dtype."""
    return Functions(dtype)


def make(packed: Weights, context: Context) -> NDArray[np.int64]:
    """Return the record (FIELDS,) of a network, whose calls work in ``context``."""
    record = np.zeros(FIELDS, np.int64)
    record[LAYOUT_AT] = LAYOUT
    record[FUNCTION] = functions(packed.dtype).call
    record[ITEMSIZE] = packed.dtype.itemsize
    record[INPUTS], record[OUTPUTS] = context.sizes
    record[STATE] = _FREE
    record[CONTEXT] = context.address
    record[ROUTINE] = machine_code.address("routine", "graph" if packed.is_graph else "chain", packed.dtype)
    return record
