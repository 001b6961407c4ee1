"""The routines as Python functions of arrays for one sample or a batch, made of a few LLVM instructions.

numba's own call costs half a microsecond: it finds out what each argument is and takes it apart. Here the
arguments are compared with the only ones that will do.
"""

# llvmlite and numba are not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import ctypes
import functools
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from fastjac.kernels import calling, fused
from fastjac.kernels.compiling import File
from fastjac.kernels.context import CONTEXT, Contexts
from fastjac.kernels.simd import BYTE_POINTER, INT

# Routine -> the shapes of its arrays for one sample, and how many of them are only read.
SHAPES = {
    "value": (("n", "m"), 1),
    "value_and_jacobian": (("n", "m", "mn"), 1),
    "vjp": (("n", "m", "m", "n"), 2),
    "jvp": (("n", "n", "m", "m"), 2),
}

NAMES = tuple(SHAPES)
# The same with weights that come with each call, and that all samples share.
OF = "value_and_jacobian_of"
_SHAPES = {**SHAPES, OF: (("n", "nh", "h", "hm", "m", "m", "mn"), 5)}
_SHARED = {OF: range(1, 5)}
_MODES = {
    "value": fused.VALUE,
    "value_and_jacobian": fused.VALUE_AND_JACOBIAN,
    "vjp": fused.VJP,
    "jvp": fused.JVP,
    OF: fused.VALUE_AND_JACOBIAN_OF,
}

INT32 = ir.IntType(32)
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_TYPE = object.__basicsize__ - _POINTER
LENGTH, ITEMS = object.__basicsize__, tuple.__basicsize__  # of a tuple
_IN_ORDER, _WRITABLE = 0x101, 0x400  # flags: C-contiguous and aligned


class _Fields(NamedTuple):
    """Offsets in NumPy's ``PyArrayObject``, which its C interface has made public."""

    data: int = object.__basicsize__
    ndim: int = object.__basicsize__ + 8
    shape: int = object.__basicsize__ + 16
    dtype: int = object.__basicsize__ + 40
    flags: int = object.__basicsize__ + 48


_FIELDS = _Fields()


class Definition(ctypes.Structure):
    """Python's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_METH_FASTCALL = 0x80
_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.restype = ctypes.py_object
_new_function.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)


class _Table:
    """The array that a function is bound to: sizes, and addresses that differ between processes."""

    def __init__(
        self, name: str, dtype: np.dtype[Any], contexts: Contexts, most: int, releases: bool
    ) -> None:
        self.contexts = contexts
        routine = calling.routine_address(dtype)
        known = (id(tuple), id(np.ndarray), id(dtype))
        self.fields = np.array(
            [contexts.address, routine, *known, *contexts.sizes, releases, most, contexts.hidden]
        )

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.fields.__array_interface__


# Offsets in a table.
_FIRST, _ROUTINE, _TUPLE, _NDARRAY, _DTYPE, _N, _M, _RELEASES, _MOST, _H = range(0, 80, 8)


def bound(
    name: str, dtype: np.dtype[Any], contexts: Contexts, most: int, releases: bool
) -> Callable[..., bool | None]:
    """Return a routine as ``f(*inputs, outputs)``, which returns whether the arrays fit.

    It returns False, with nothing written, unless it is given ndarrays, the outputs in a tuple, of the right
    shapes for one sample or (B, ...) for up to ``most``, and of ``dtype``, C-contiguous and aligned, those
    that it writes writable and overlapping no other; and None, with nothing written, where none of the
    ``contexts`` is free. Other threads run in the meantime, in the case of one sample only if it
    ``releases`` the interpreter's lock.
    """
    table = np.asarray(_Table(name, dtype, contexts, most, releases))  # keeps the contexts
    function: Callable[..., bool | None] = _new_function(_definition(name, dtype), table, None)
    return function


class Functions:
    """A network's routines as functions of `bound`, each made when it is first called.

    Parameters
    ----------
    dtype : dtype
        Of the network.
    contexts : Contexts
        Of the network.
    terms : mapping of str to (int, bool)
        ``most`` and ``releases`` of each routine; see `bound`.
    """

    __slots__ = (*NAMES, "contexts", "dtype", "terms")

    def __init__(
        self, dtype: np.dtype[Any], contexts: Contexts, terms: Mapping[str, tuple[int, bool]]
    ) -> None:
        self.dtype = dtype
        self.contexts = contexts
        self.terms = terms

    def call(self, name: str, *arguments: Any) -> bool:
        """Call a routine with its inputs and, in a tuple, its outputs; return whether they fit."""
        function = getattr(self, name, None)
        if function is None:
            function = bound(name, self.dtype, self.contexts, *self.terms[name])
            setattr(self, name, function)
        while (fits := function(*arguments)) is None:
            self.contexts.add()
        return bool(fits)


@functools.cache
def _definition(name: str, dtype: np.dtype[Any]) -> int:
    """Return the address of a routine's definition, which stays for as long as the process."""
    check_layout()
    library = load(name, dtype)
    address = library.get_pointer_to_function(_symbol(name, dtype))
    definition = Definition(name.encode(), address, _METH_FASTCALL, None)
    _kept.append((library, definition))
    return ctypes.addressof(definition)


_kept: list[Any] = []


def load(name: str, dtype: np.dtype[Any]) -> Any:
    """Return numba's library of a routine's function, from its file where there is one."""
    return library_of(_symbol(name, dtype), lambda module: _emit(module, name, dtype))


def library_of(name: str, emit: Callable[[ir.Module], None]) -> Any:
    """Return numba's library of what ``emit`` writes into a module, from its file where there is one."""
    file = File(name.replace(".", "_"))
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        payload = file.read()
        if payload is not None:
            return codegen.unserialize_library(pickle.loads(payload))
        library = codegen.create_library(name)
        library.enable_object_caching()
        module = library.create_ir_module(name)
        emit(module)
        library.add_ir_module(module)
        library.finalize()
        file.write(pickle.dumps(library.serialize_using_object_code()))
        return library


def _symbol(name: str, dtype: np.dtype[Any]) -> str:
    return f"fastjac.entry.{name}.{dtype}"


def check_layout() -> None:
    """Raise RuntimeError if a tuple's or an array's fields are not where they are expected."""
    array = np.zeros((2, 3))
    array.flags.writeable = False
    found = [ctypes.c_ssize_t.from_address(id(array) + offset).value for offset in _FIELDS]
    shape = (ctypes.c_ssize_t * 2).from_address(found[2])
    expected = [array.ctypes.data, 2, found[2], id(array.dtype), _IN_ORDER]
    found[1], found[4] = found[1] & 0xFFFFFFFF, found[4] & (_IN_ORDER | _WRITABLE)
    kind = ctypes.c_ssize_t.from_address(id(array) + _TYPE).value
    if found != expected or tuple(shape) != array.shape or kind != id(np.ndarray):
        raise RuntimeError(f"NumPy {np.__version__} lays arrays out in a way that fastjac does not know")
    pair = (array, shape)
    places = (_TYPE, LENGTH, ITEMS, ITEMS + _POINTER)
    found = [ctypes.c_ssize_t.from_address(id(pair) + offset).value for offset in places]
    if found != [id(tuple), 2, id(array), id(shape)]:
        raise RuntimeError(f"Python {sys.version} lays tuples out in a way that fastjac does not know")


def emit_read(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value | int, kind: ir.Type = INT) -> ir.Value:
    """Emit the reading of a ``kind`` that is ``offset`` bytes past a pointer."""
    offset = INT(offset) if isinstance(offset, int) else offset
    place = builder.gep(base, [offset], source_etype=ir.IntType(8))
    return builder.load(builder.bitcast(place, kind.as_pointer()))


def emit_call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Emit a call of a function of the interpreter."""
    module, kind = builder.module, ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(module.globals.get(name) or ir.Function(module, kind, name), arguments)


def _emit(module: ir.Module, name: str, dtype: np.dtype[Any]) -> None:
    """Emit ``PyObject *function(PyObject *table, PyObject *const *arguments, Py_ssize_t count)``."""
    shapes, n_read = _SHAPES[name]
    shared = _SHARED.get(name, ())
    kind = ir.FunctionType(BYTE_POINTER, [BYTE_POINTER, BYTE_POINTER, INT])
    function = ir.Function(module, kind, _symbol(name, dtype))
    builder = ir.IRBuilder(function.append_basic_block())
    refuse = function.append_basic_block("refuse")

    read, call = functools.partial(emit_read, builder), functools.partial(emit_call, builder)

    def write(base: ir.Value, offset: int, value: ir.Value) -> None:
        place = builder.gep(base, [INT(offset)], source_etype=ir.IntType(8))
        builder.store(value, builder.bitcast(place, value.type.as_pointer()))

    def require(value: ir.Value, expected: ir.Value, comparison: str = "==") -> None:
        following = function.append_basic_block()
        builder.cbranch(builder.icmp_unsigned(comparison, value, expected), following, refuse)
        builder.position_at_end(following)

    owner, arguments, count = function.args
    table = read(owner, _FIELDS.data, BYTE_POINTER)
    require(count, INT(n_read + 1))
    outputs = read(arguments, 8 * n_read, BYTE_POINTER)
    require(read(outputs, _TYPE), read(table, _TUPLE))
    require(read(outputs, LENGTH), INT(len(shapes) - n_read))
    lengths = {"n": read(table, _N), "m": read(table, _M), "h": read(table, _H)}
    pointers = []
    axes, samples = INT32(0), INT(1)  # before those of one sample, and how many of these there are
    for number, shape in enumerate(shapes):
        written = number >= n_read
        place = (outputs, ITEMS + 8 * (number - n_read)) if written else (arguments, 8 * number)
        array = read(*place, BYTE_POINTER)
        flags = _IN_ORDER | (_WRITABLE if written else 0)
        require(read(array, _TYPE), read(table, _NDARRAY))
        require(read(array, _FIELDS.dtype), read(table, _DTYPE))
        require(builder.and_(read(array, _FIELDS.flags, INT32), INT32(flags)), INT32(flags))
        extra = builder.sub(read(array, _FIELDS.ndim, INT32), INT32(len(shape)))
        lengths_at = read(array, _FIELDS.shape, BYTE_POINTER)
        if number == 0:
            require(extra, INT32(1), "<=")
            axes, batch = extra, builder.icmp_unsigned("==", extra, INT32(1))
            samples = builder.select(batch, read(lengths_at, 0), INT(1))
            require(samples, read(table, _MOST), "<=")
        elif number in shared:
            require(extra, INT32(0))
        else:
            require(extra, axes)
            require(builder.select(batch, read(lengths_at, 0), INT(1)), samples)
        if number not in shared:
            lengths_at = builder.gep(lengths_at, [builder.mul(axes, INT32(8))], source_etype=ir.IntType(8))
        for axis, length in enumerate(shape):
            require(read(lengths_at, 8 * axis), lengths[length])
        pointers.append(read(array, _FIELDS.data, BYTE_POINTER))

    x, *others = pointers[:n_read]
    y, *results = pointers[n_read:]
    given = others[0] if others else None
    if shared:
        given = builder.alloca(BYTE_POINTER, len(others))
        for i, weights in enumerate(others):
            builder.store(weights, builder.gep(given, [INT(i)]))

    # The first context that is free. Who holds the interpreter's lock may read and write which are.
    assert CONTEXT.fields is not None
    taken_at, next_at = (CONTEXT.fields[field][1] for field in ("taken", "next"))
    first = read(read(table, _FIRST, BYTE_POINTER), 0, BYTE_POINTER)
    before = builder.block
    search, look, take, none = (function.append_basic_block() for _ in range(4))
    builder.branch(search)
    builder.position_at_end(search)
    context = builder.phi(BYTE_POINTER)
    context.add_incoming(first, before)
    builder.cbranch(builder.icmp_unsigned("==", context, BYTE_POINTER(None)), none, look)
    builder.position_at_end(look)
    context.add_incoming(read(context, next_at, BYTE_POINTER), look)
    builder.cbranch(builder.icmp_signed("!=", read(context, taken_at), INT(0)), search, take)
    builder.position_at_end(take)
    write(context, taken_at, INT(1))

    routine = read(table, _ROUTINE, calling.routine_type().as_pointer())
    releases = builder.icmp_signed("!=", read(table, _RELEASES), INT(0))
    releases = builder.or_(releases, batch)
    before = builder.block
    with builder.if_then(releases):
        saved, saving = call("PyEval_SaveThread", BYTE_POINTER), builder.block
    thread = builder.phi(BYTE_POINTER)
    thread.add_incoming(saved, saving)
    thread.add_incoming(BYTE_POINTER(None), before)
    status = calling.emit_call(
        builder,
        routine,
        builder.ptrtoint(context, INT),
        _MODES[name],
        samples,
        x,
        given,
        y,
        results[0] if results else None,
    )
    with builder.if_then(releases):
        call("PyEval_RestoreThread", ir.VoidType(), thread)
    write(context, taken_at, INT(0))
    done = builder.zext(builder.icmp_signed("==", status, INT32(fused.OK)), INT)
    builder.ret(call("PyBool_FromLong", BYTE_POINTER, done))
    builder.position_at_end(refuse)
    builder.ret(call("PyBool_FromLong", BYTE_POINTER, INT(0)))
    builder.position_at_end(none)
    nothing = ir.GlobalVariable(module, ir.IntType(8), "_Py_NoneStruct")
    call("Py_IncRef", ir.VoidType(), nothing)
    builder.ret(nothing)
