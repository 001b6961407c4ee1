"""The compiled routine as a C function, made of a few LLVM instructions, and its call from njit code.

A C caller hands over one pointer for the network. It points to a *record*: int64 fields that tell what is
called and who may call it. `SELF` is the record's own address, so that a copy of it is told from it.
"""

# numba's decorators are not typed.
# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import errors, njit, types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastjac.kernels import fused
from fastjac.kernels.intrinsics import address
from fastjac.kernels.simd import BYTE_POINTER, INT

BUSY, CLOSED = 2, 3
# Fields of a record. Callers' own cached code reads those up to OUTPUTS: when they change, so must LAYOUT.
LAYOUT = 0x66617374_6A616301
LAYOUT_AT, SELF, FUNCTION, ITEMSIZE, INPUTS, OUTPUTS, STATE, CONTEXT, ROUTINE, FIELDS = range(10)
_FREE, _TAKEN, _SHUT = range(3)  # what STATE may be

INT32 = ir.IntType(32)
FUNCTION_TYPE = ir.FunctionType(INT32, [BYTE_POINTER] * 4)


_ARGUMENTS = [types.intp] * fused.ARGUMENTS


def routine_type() -> ir.FunctionType:
    """Return the type of the machine code of the routine."""
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


def emit_status(builder: ir.IRBuilder, wrong: ir.Value, status: int) -> None:
    """Emit a return of ``status`` where ``wrong``."""
    with builder.if_then(wrong, likely=False):
        builder.ret(INT32(status))


def emit_any_null(builder: ir.IRBuilder, pointers: Sequence[ir.Value]) -> ir.Value:
    """Return whether one of the pointers is null."""
    return functools.reduce(
        builder.or_, [builder.icmp_unsigned("==", pointer, pointer.type(None)) for pointer in pointers]
    )


def _field(builder: ir.IRBuilder, record: ir.Value, field: int) -> ir.Value:
    return builder.gep(builder.bitcast(record, INT.as_pointer()), [INT(field)])


def _emit_function(module: ir.Module, name: str) -> None:
    """Emit ``int name(record, x, y, jac)``, which one thread at a time gets through."""
    function = ir.Function(module, FUNCTION_TYPE, name)
    builder = ir.IRBuilder(function.append_basic_block())
    record, *pointers = function.args
    emit_status(builder, emit_any_null(builder, function.args), fused.MISMATCH)
    state = _field(builder, record, STATE)
    exchanged = builder.cmpxchg(state, INT(_FREE), INT(_TAKEN), "acquire", "monotonic")
    old = builder.extract_value(exchanged, 0)
    emit_status(builder, builder.icmp_signed("==", old, INT(_TAKEN)), BUSY)
    emit_status(builder, builder.icmp_signed("!=", old, INT(_FREE)), CLOSED)
    context, routine = (builder.load(_field(builder, record, field)) for field in (CONTEXT, ROUTINE))
    routine = builder.inttoptr(routine, routine_type().as_pointer())
    x, y, jac = pointers
    mode = fused.VALUE_AND_JACOBIAN
    status = emit_call(builder, routine, context, mode, INT(1), x, None, y, jac)
    builder.store_atomic(INT(_FREE), state, "release", align=8)
    builder.ret(status)


def _emit_close(module: ir.Module, name: str) -> None:
    """Emit ``int name(record)``: refuse all calls from now on, or return 1 where one is running."""
    function = ir.Function(module, ir.FunctionType(INT32, [BYTE_POINTER]), name)
    builder = ir.IRBuilder(function.append_basic_block())
    state = _field(builder, function.args[0], STATE)
    exchanged = builder.cmpxchg(state, INT(_FREE), INT(_SHUT), "acq_rel", "monotonic")
    busy = builder.icmp_signed("==", builder.extract_value(exchanged, 0), INT(_TAKEN))
    builder.ret(builder.zext(busy, INT32))


class _Functions:
    """The C functions of one dtype, which stay for as long as the process.

    Attributes
    ----------
    call : int
        Address of ``int (record, x, y, jac)``.
    close : callable
        ``close(record)`` refuses all calls from then on, or returns true where one is running.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        # Names of compiled functions are the whole process's.
        names = [f"fastjac.{function}.{dtype}" for function in ("call", "close")]
        self._library = cpu_target.target_context.codegen().create_library(f"fastjac.calling.{dtype}")
        module = self._library.create_ir_module("fastjac.calling")
        _emit_function(module, names[0])
        _emit_close(module, names[1])
        self._library.add_ir_module(module)
        self._library.finalize()
        self.call, close = (int(self._library.get_pointer_to_function(name)) for name in names)
        self.close: Callable[[int], int] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(close)


@global_compiler_lock
@functools.cache
def functions(dtype: np.dtype[Any]) -> _Functions:
    """Return the C functions of one dtype."""
    return _Functions(dtype)


@functools.cache
def routine_address(dtype: np.dtype[Any]) -> int:
    """Return the address of the routine's machine code, which stays for as long as the process."""
    (compiled,) = fused.routine(dtype).overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def fill(
    record: NDArray[np.int64], dtype: np.dtype[Any], n_inputs: int, n_outputs: int, context: int
) -> None:
    """Make ``record`` (FIELDS,) that of a network whose `context.Context` is at the address ``context``."""
    fields = {
        LAYOUT_AT: LAYOUT,
        SELF: record.ctypes.data,
        FUNCTION: functions(dtype).call,
        ITEMSIZE: dtype.itemsize,
        INPUTS: n_inputs,
        OUTPUTS: n_outputs,
        STATE: _FREE,
        CONTEXT: context,
        ROUTINE: routine_address(dtype),
    }
    record[list(fields)] = list(fields.values())


@intrinsic
def _call(typing: Any, handle: Any, x: Any, y: Any, jac: Any) -> Any:
    """Return the status of the function of a record, called with three arrays."""
    for name, array, ndim in zip(("x", "y", "jac"), (x, y, jac), (1, 1, 2), strict=True):
        fits = isinstance(array, types.Array) and array.ndim == ndim and array.layout == "C"
        if not fits or array.dtype not in (types.float32, types.float64) or array.dtype != x.dtype:
            raise errors.TypingError(
                f"value_and_jacobian: {name} is {array}, expected a C-contiguous float32 or float64 array "
                f"of {ndim} dimension{'s' * (ndim > 1)}, the same dtype as x"
            )
        if name != "x" and not array.mutable:
            raise errors.TypingError(f"value_and_jacobian: {name} is read-only")

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        data = [
            builder.bitcast(cgutils.create_struct_proxy(kind)(context, builder, value).data, BYTE_POINTER)
            for kind, value in zip(signature.args, args, strict=True)
        ]
        function = builder.load(_field(builder, data[0], FUNCTION))
        function = builder.inttoptr(function, FUNCTION_TYPE.as_pointer())
        return builder.sext(builder.call(function, data), INT)

    return types.intp(handle, x, y, jac), codegen


@njit(error_model="numpy")
def value_and_jacobian(handle, x, y, jac):
    """Write a network's output and Jacobian from compiled code; callable from Python also.

    Parameters
    ----------
    handle : ndarray of int64
        What `Network.handle` returned. For one thread at a time.
    x : ndarray, (N,)
        Inputs. All arrays are C-contiguous and of the network's dtype.
    y : ndarray, (M,)
        Written: the output.
    jac : ndarray, (M, N)
        Written: ``jac[m, n] = d y[m] / d x[n]``. The arrays do not overlap.

    Returns
    -------
    status : int
        `OK`, or, with nothing written, `MISMATCH` for arrays or a handle that do not fit and `BUSY` where
        another thread is using the handle.

    Raises
    ------
    TypingError
        When the calling function is compiled, for arguments that are not such arrays.
    """
    if handle.size != FIELDS or handle[LAYOUT_AT] != LAYOUT or handle[SELF] != address(handle):
        return fused.MISMATCH
    n, m = handle[INPUTS], handle[OUTPUTS]
    if handle[ITEMSIZE] != x.itemsize or x.size != n or y.size != m or jac.shape[0] != m or jac.shape[1] != n:
        return fused.MISMATCH
    return _call(handle, x, y, jac)
