"""Python's and NumPy's objects in LLVM instructions: where their fields are, and how they are made."""

# llvmlite is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, INT32

_POINTER = ctypes.sizeof(ctypes.c_void_p)
TYPE = object.__basicsize__ - _POINTER
LENGTH, ITEMS = object.__basicsize__, tuple.__basicsize__  # of a tuple
IN_ORDER, WRITABLE = 0x101, 0x400  # flags of an array: C-contiguous and aligned
_NEW_ARRAY = 93  # the place of PyArray_New in NumPy's table of functions
_METH_NOARGS, _METH_FASTCALL = 0x4, 0x80


class _Fields(NamedTuple):
    """Offsets in NumPy's ``PyArrayObject``, which its C interface has made public."""

    data: int = object.__basicsize__
    ndim: int = object.__basicsize__ + 8
    shape: int = object.__basicsize__ + 16
    dtype: int = object.__basicsize__ + 40
    flags: int = object.__basicsize__ + 48


ARRAY = _Fields()


def check_layout() -> None:
    """Raise RuntimeError if a tuple's or an array's fields are not where they are expected."""
    array = np.zeros((2, 3))
    array.flags.writeable = False
    found = [ctypes.c_ssize_t.from_address(id(array) + offset).value for offset in ARRAY]
    shape = (ctypes.c_ssize_t * 2).from_address(found[2])
    expected = [array.ctypes.data, 2, found[2], id(array.dtype), IN_ORDER]
    found[1], found[4] = found[1] & 0xFFFFFFFF, found[4] & (IN_ORDER | WRITABLE)
    kind = ctypes.c_ssize_t.from_address(id(array) + TYPE).value
    if found != expected or tuple(shape) != array.shape or kind != id(np.ndarray):
        raise RuntimeError(f"NumPy {np.__version__} lays arrays out in a way that fastjac does not know")
    pair = (array, shape)
    places = (TYPE, LENGTH, ITEMS, ITEMS + _POINTER)
    found = [ctypes.c_ssize_t.from_address(id(pair) + offset).value for offset in places]
    if found != [id(tuple), 2, id(array), id(shape)]:
        raise RuntimeError(f"Python {sys.version} lays tuples out in a way that fastjac does not know")


@functools.cache
def new_array_address() -> int:
    """Return the address of NumPy's ``PyArray_New``."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    module = importlib.import_module("numpy._core._multiarray_umath")  # as numpy/__multiarray_api.h does
    table: Any = get(module._ARRAY_API, None)
    return ctypes.c_ssize_t.from_address(table + _NEW_ARRAY * _POINTER).value


class _Definition(ctypes.Structure):
    """Python's ``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def definition(name: str, address: int, takes_arguments: bool) -> _Definition:
    """Return Python's description of a function at an address, which must outlive all such functions."""
    return _Definition(name.encode(), address, _METH_FASTCALL if takes_arguments else _METH_NOARGS, None)


_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.restype = ctypes.py_object
_new_function.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)


def new_function(described: _Definition, owner: object) -> Any:
    """Return a function that gets ``owner`` as its first argument and keeps it."""
    return _new_function(ctypes.addressof(described), owner, None)


class Interpreter:
    """Emits reads of objects' fields and calls of the interpreter."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def place(self, base: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
        """Emit the pointer to a ``kind`` that is ``offset`` bytes past a pointer."""
        place = self.builder.gep(base, [INT(offset)], source_etype=ir.IntType(8))
        return self.builder.bitcast(place, kind.as_pointer())

    def read(self, base: ir.Value, offset: int, kind: ir.Type = INT) -> ir.Value:
        """Emit the reading of a ``kind`` that is ``offset`` bytes past a pointer."""
        return self.builder.load(self.place(base, offset, kind))

    def call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Emit a call of a function of the interpreter."""
        module, kind = self.builder.module, ir.FunctionType(result, [each.type for each in arguments])
        return self.builder.call(module.globals.get(name) or ir.Function(module, kind, name), arguments)

    def new_reference(self, value: ir.Value) -> ir.Value:
        """Emit one more reference to an object."""
        self.call("Py_IncRef", ir.VoidType(), value)
        return value

    def new_tuple(self, parts: Sequence[ir.Value]) -> ir.Value:
        """Emit a tuple of objects, null where memory runs out."""
        made = self.call("PyTuple_New", BYTE_POINTER, INT(len(parts)))
        with self.builder.if_then(self.builder.icmp_unsigned("!=", made, BYTE_POINTER(None)), likely=True):
            for number, part in enumerate(parts):
                place = self.place(made, ITEMS + _POINTER * number, BYTE_POINTER)
                self.builder.store(self.new_reference(part), place)
        return made

    def new_array(
        self, function: ir.Value, kind: ir.Value, ndim: ir.Value, shape: ir.Value, number_of_type: ir.Value
    ) -> ir.Value:
        """Emit a new array of whatever the memory holds, null where that runs out."""
        null, zero = BYTE_POINTER(None), INT32(0)
        shape = self.builder.bitcast(shape, BYTE_POINTER)
        arguments = [kind, ndim, shape, number_of_type, null, null, zero, zero, null]
        new = ir.FunctionType(BYTE_POINTER, [each.type for each in arguments])
        return self.builder.call(self.builder.bitcast(function, new.as_pointer()), arguments)

    def raise_error(self, kind: ir.Value, message: str) -> ir.Value:
        """Emit an exception of a kind, a Python class; return null."""
        module = self.builder.module
        content = bytearray(message.encode() + b"\0")
        text = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), len(content)), "message")
        text.initializer, text.linkage = ir.Constant(text.value_type, content), "internal"
        self.call("PyErr_SetString", ir.VoidType(), kind, self.builder.bitcast(text, BYTE_POINTER))
        return BYTE_POINTER(None)
