"""The functions that Python and C call, made of a few LLVM instructions each.

numba's own call costs half a microsecond: it finds out what each argument is and takes it apart. Here the
arguments are compared with the only ones that will do, and new outputs are made where none are given.
"""

# llvmlite and numba are not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from fastjac.kernels import routines
from fastjac.kernels.interpreter import ARRAY, IN_ORDER, LENGTH, TYPE, WRITABLE
from fastjac.kernels.layout import CONTEXT
from fastjac.kernels.llvm.python import Interpreter
from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, INT32
from fastjac.kernels.signatures import CALLS, MODES, OK, SIGNATURES, Signature

_WORD = 8
# Offsets in the table of a function: sizes, and addresses that differ between processes.
(
    _FIRST,
    _ROUTINE,
    _TUPLE,
    _NDARRAY,
    _DTYPE,
    _N,
    _M,
    _H,
    _RELEASES,
    _MOST,
    _NONE,
    _NONES,
    _NEW_ARRAY,
    _ITEMS,
) = range(0, 14 * _WORD, _WORD)
_SIZES = {"n": _N, "m": _M, "h": _H}
# Offsets in the table of a step; the pointers to its arrays follow.
_CONTEXT, _STEP_ROUTINE, _STEP_RELEASES, _RESULT, _SAMPLES, _ERROR, _POINTERS = range(0, 7 * _WORD, _WORD)


def emit(module: ir.Module, kind: str, name: str, symbol: str, dtype: np.dtype[Any]) -> None:
    """Emit the function that calls a routine: ``"call"`` with new arrays, ``"step"`` with known ones."""
    if kind == "call":
        _emit_call(module, symbol, name, dtype)
    else:
        _emit_step(module, symbol, name)


def _emit_call(module: ir.Module, symbol: str, name: str, dtype: np.dtype[Any]) -> None:
    """Emit ``PyObject *symbol(PyObject *table, PyObject *const *arguments, Py_ssize_t count)``."""
    kind = ir.FunctionType(BYTE_POINTER, [BYTE_POINTER, BYTE_POINTER, INT])
    function = ir.Function(module, kind, symbol)
    python = Interpreter(ir.IRBuilder(function.append_basic_block()))
    builder, read, signature = python.builder, python.read, CALLS[name]
    table = read(function.args[0], ARRAY.data, BYTE_POINTER)
    call = _Call(python, table, function.append_basic_block("refuse"))
    call.check(signature, *function.args[1:])
    context, none = _emit_take(python, read(read(table, _FIRST, BYTE_POINTER), 0, BYTE_POINTER))
    call.make_outputs(signature, dtype, context)
    releases = builder.or_(builder.icmp_signed("!=", read(table, _RELEASES), INT(0)), call.is_batch)
    routine, pointers = read(table, _ROUTINE), [builder.load(slot) for slot in call.pointers]
    status = _emit_run(python, name, routine, releases, context, call.samples, pointers)
    with builder.if_then(builder.icmp_signed("==", status, INT32(OK)), likely=True):
        builder.ret(call.result())
    call.drop_new()
    builder.branch(call.refuse)
    builder.position_at_end(call.refuse)
    builder.ret(python.call("PyBool_FromLong", BYTE_POINTER, INT(0)))
    builder.position_at_end(none)
    builder.ret(python.new_reference(read(table, _NONE, BYTE_POINTER)))


class _Call:
    """Emits the checks of a call's arguments, and its new outputs."""

    def __init__(self, python: Interpreter, table: ir.Value, refuse: ir.Block) -> None:
        self.python, self.builder, self.table, self.refuse = python, python.builder, table, refuse

    def require(self, value: ir.Value, expected: ir.Value, comparison: str = "==") -> None:
        """Emit a branch to the refusal unless a comparison holds."""
        following = self.builder.append_basic_block()
        self.builder.cbranch(self.builder.icmp_unsigned(comparison, value, expected), following, self.refuse)
        self.builder.position_at_end(following)

    def check(self, signature: Signature, arguments: ir.Value, count: ir.Value) -> None:
        """Emit all checks; what is found becomes attributes."""
        builder, read, table = self.builder, self.python.read, self.table
        n_read, n_written = len(signature.inputs), len(signature.outputs)
        self.require(count, INT(n_read + 1))
        given = read(arguments, _WORD * n_read, BYTE_POINTER)
        is_none = builder.icmp_unsigned("==", given, read(table, _NONE, BYTE_POINTER))
        self.outputs = builder.select(is_none, read(table, _NONES, BYTE_POINTER), given)
        self.require(read(self.outputs, TYPE), read(table, _TUPLE))
        self.require(read(self.outputs, LENGTH), INT(n_written))
        self.items = self.python.past(self.outputs, read(table, _ITEMS))
        # Slots: LLVM makes registers of them.
        self.pointers = [builder.alloca(BYTE_POINTER) for _ in signature.arrays]
        self.made = [builder.alloca(BYTE_POINTER) for _ in signature.outputs]
        for number, (label, axes) in enumerate(signature.inputs.items()):
            array = read(arguments, _WORD * number, BYTE_POINTER)
            if number == 0:
                self.find_samples(array)
            shared = label in signature.shared
            self.check_array(array, axes, IN_ORDER, self.pointers[number], shared)
        for number, axes in enumerate(signature.outputs.values()):
            builder.store(BYTE_POINTER(None), self.made[number])
            array = read(self.items, _WORD * number, BYTE_POINTER)
            is_none = builder.icmp_unsigned("==", array, read(table, _NONE, BYTE_POINTER))
            with builder.if_then(builder.not_(is_none)):
                self.check_array(array, axes, IN_ORDER | WRITABLE, self.pointers[n_read + number])

    def find_samples(self, x: ir.Value) -> None:
        """Emit how many samples ``x`` has, and the axes before those of one sample."""
        builder, read = self.builder, self.python.read
        self.require(read(x, TYPE), read(self.table, _NDARRAY))
        self.axes = builder.sub(read(x, ARRAY.ndim, INT32), INT32(1))
        self.require(self.axes, INT32(1), "<=")
        self.is_batch = builder.icmp_unsigned("==", self.axes, INT32(1))
        self.samples = builder.select(self.is_batch, read(read(x, ARRAY.shape, BYTE_POINTER), 0), INT(1))
        self.require(self.samples, read(self.table, _MOST), "<=")

    def check_array(
        self, array: ir.Value, axes: str, flags: int, slot: ir.Value, shared: bool = False
    ) -> None:
        """Emit the checks of one array, and put the pointer to its data into a slot."""
        builder, read = self.builder, self.python.read
        self.require(read(array, TYPE), read(self.table, _NDARRAY))
        self.require(read(array, ARRAY.dtype), read(self.table, _DTYPE))
        self.require(builder.and_(read(array, ARRAY.flags, INT32), INT32(flags)), INT32(flags))
        before = INT32(0) if shared else self.axes
        self.require(builder.sub(read(array, ARRAY.ndim, INT32), INT32(len(axes))), before)
        lengths = read(array, ARRAY.shape, BYTE_POINTER)
        if not shared:
            self.require(builder.select(self.is_batch, read(lengths, 0), INT(1)), self.samples)
        lengths = builder.gep(lengths, [builder.mul(before, INT32(_WORD))], source_etype=ir.IntType(8))
        for axis, length in enumerate(axes):
            self.require(read(lengths, _WORD * axis), read(self.table, _SIZES[length]))
        builder.store(read(array, ARRAY.data, BYTE_POINTER), slot)

    def make_outputs(self, signature: Signature, dtype: np.dtype[Any], context: ir.Value) -> None:
        """Emit new arrays for the outputs that are None; where memory runs out, give ``context`` back."""
        builder, read = self.builder, self.python.read
        shape = builder.alloca(INT, 3)
        number_of_type = INT32(dtype.num)
        for number, axes in enumerate(signature.outputs.values()):
            array = read(self.items, _WORD * number, BYTE_POINTER)
            is_none = builder.icmp_unsigned("==", array, read(self.table, _NONE, BYTE_POINTER))
            with builder.if_then(is_none):
                for axis, length in enumerate(
                    [self.samples, *(read(self.table, _SIZES[axis]) for axis in axes)]
                ):
                    builder.store(length, builder.gep(shape, [INT(axis)]))
                first = builder.gep(shape, [builder.sub(INT32(1), self.axes)])
                ndim = builder.add(self.axes, INT32(len(axes)))
                made = self.python.new_array(
                    read(self.table, _NEW_ARRAY, BYTE_POINTER),
                    read(self.table, _NDARRAY, BYTE_POINTER),
                    ndim,
                    first,
                    number_of_type,
                )
                with builder.if_then(builder.icmp_unsigned("==", made, BYTE_POINTER(None)), likely=False):
                    self.drop_new()
                    _emit_give_back(self.python, context)
                    builder.ret(BYTE_POINTER(None))
                builder.store(made, self.made[number])
                pointer = read(made, ARRAY.data, BYTE_POINTER)
                builder.store(pointer, self.pointers[len(signature.inputs) + number])

    def result(self) -> ir.Value:
        """Emit the tuple of all outputs: the one that was given, unless some of them are new."""
        builder, read = self.builder, self.python.read
        made = [builder.load(slot) for slot in self.made]
        found = [builder.icmp_unsigned("!=", each, BYTE_POINTER(None)) for each in made]
        with builder.if_else(functools.reduce(builder.or_, found)) as (some, none):
            with some:
                given = [read(self.items, _WORD * i, BYTE_POINTER) for i in range(len(made))]
                parts = [builder.select(*each) for each in zip(found, made, given, strict=True)]
                packed = self.python.new_tuple(parts, read(self.table, _ITEMS))
                self.drop_new()
                after = builder.block
            with none:
                itself = self.python.new_reference(self.outputs)
                otherwise = builder.block
        result = builder.phi(BYTE_POINTER)
        result.add_incoming(packed, after)
        result.add_incoming(itself, otherwise)
        return result

    def drop_new(self) -> None:
        """Emit the end of this function's own references to new arrays."""
        for slot in self.made:
            self.python.call("Py_DecRef", ir.VoidType(), self.builder.load(slot))


def _emit_step(module: ir.Module, symbol: str, name: str) -> None:
    """Emit ``PyObject *symbol(PyObject *table, PyObject *nothing)``."""
    function = ir.Function(module, ir.FunctionType(BYTE_POINTER, [BYTE_POINTER] * 2), symbol)
    python = Interpreter(ir.IRBuilder(function.append_basic_block()))
    builder, read = python.builder, python.read
    table = read(function.args[0], ARRAY.data, BYTE_POINTER)
    context, busy = _emit_take(python, read(table, _CONTEXT, BYTE_POINTER))
    pointers = [read(table, _POINTERS + _WORD * i, BYTE_POINTER) for i in range(len(SIGNATURES[name].arrays))]
    releases = builder.icmp_signed("!=", read(table, _STEP_RELEASES), INT(0))
    routine = read(table, _STEP_ROUTINE)
    _emit_run(python, name, routine, releases, context, read(table, _SAMPLES), pointers)
    builder.ret(python.new_reference(read(table, _RESULT, BYTE_POINTER)))
    builder.position_at_end(busy)
    error = read(table, _ERROR, BYTE_POINTER)
    builder.ret(python.raise_error(error, "this step is running: bind one for each thread"))


def _emit_take(python: Interpreter, first: ir.Value) -> tuple[ir.Value, ir.Block]:
    """Emit a search for the first free context of a list, and take it; return it and where there is none.

    It is taken atomically: not every interpreter has a lock that its caller would hold.
    """
    builder = python.builder
    before = builder.block
    search, look, taken, none = (builder.append_basic_block(name) for name in ("search", "look", "", "none"))
    builder.branch(search)
    builder.position_at_end(search)
    context = builder.phi(BYTE_POINTER)
    context.add_incoming(first, before)
    builder.cbranch(builder.icmp_unsigned("==", context, BYTE_POINTER(None)), none, look)
    builder.position_at_end(look)
    state = python.place(context, _offset("taken"), INT)
    exchanged = builder.cmpxchg(state, INT(0), INT(1), "acquire", "monotonic")
    context.add_incoming(python.read(context, _offset("next"), BYTE_POINTER), look)
    builder.cbranch(builder.extract_value(exchanged, 1), taken, search)
    builder.position_at_end(taken)
    return context, none


def _emit_give_back(python: Interpreter, context: ir.Value) -> None:
    python.builder.store_atomic(INT(0), python.place(context, _offset("taken"), INT), "release", align=_WORD)


def _emit_run(
    python: Interpreter,
    name: str,
    routine: ir.Value,
    releases: ir.Value,
    context: ir.Value,
    samples: ir.Value,
    pointers: Sequence[ir.Value],
) -> ir.Value:
    """Emit the call of a routine, without the interpreter's lock if it ``releases``; return the status."""
    builder, signature = python.builder, CALLS[name]
    routine = builder.inttoptr(routine, routines.routine_type().as_pointer())
    x, *others = pointers[: len(signature.inputs)]
    y, *out = pointers[len(signature.inputs) :]
    given = others[0] if others else None
    if signature.shared:
        given = builder.alloca(BYTE_POINTER, len(others))
        for i, weights in enumerate(others):
            builder.store(weights, builder.gep(given, [INT(i)]))
    before = builder.block
    with builder.if_then(releases):
        saved, saving = python.call("PyEval_SaveThread", BYTE_POINTER), builder.block
    thread = builder.phi(BYTE_POINTER)
    thread.add_incoming(saved, saving)
    thread.add_incoming(BYTE_POINTER(None), before)
    arrays = x, given, y, out[0] if out else None
    at, mode = builder.ptrtoint(context, INT), MODES[name]
    status = routines.emit_call(builder, routine, at, mode, samples, *arrays)
    _emit_give_back(python, context)
    with builder.if_then(releases):
        python.call("PyEval_RestoreThread", ir.VoidType(), thread)
    return status


def _offset(field: str) -> int:
    """Return where in a context's record a field is."""
    assert CONTEXT.fields is not None
    return CONTEXT.fields[field][1]
