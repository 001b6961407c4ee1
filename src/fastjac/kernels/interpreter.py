"""Python's and NumPy's objects: where their fields are, and functions made of machine code."""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
from typing import Any, NamedTuple

import numpy as np

POINTER = ctypes.sizeof(ctypes.c_void_p)
TYPE = object.__basicsize__ - POINTER
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
# What machine code relies on.
LAYOUT = (TYPE, LENGTH, *ARRAY)


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
    places = (TYPE, LENGTH, ITEMS, ITEMS + POINTER)
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
    return ctypes.c_ssize_t.from_address(table + _NEW_ARRAY * POINTER).value


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
