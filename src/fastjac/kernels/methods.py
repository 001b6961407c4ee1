"""The common case of a class's methods, as a few LLVM instructions.

A method written in Python that does nothing but hand its arguments on costs as much as the function of
`entry` that it calls.
"""

# llvmlite and numba are not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import ctypes
import functools
import inspect
import sys
import threading
from typing import Any

from llvmlite import binding, ir

from fastjac.kernels import functions
from fastjac.kernels.llvm.arrays import INT32
from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT, Loop

# The methods that take ``out=(...)``.
_NAMES = ("value_and_jacobian", "vjp", "jvp")
_SLOTS = object.__basicsize__  # where those of a class without bases begin, in the order of their names
_OUT, _SLOW = "fastjac.methods.out", ".slow"  # the string "out"; what the method was, behind its symbol
_METH_FASTCALL, _METH_KEYWORDS = 0x80, 0x2
_new_method = ctypes.pythonapi.PyDescr_NewMethod
_new_method.restype = ctypes.py_object
_new_method.argtypes = (ctypes.py_object, ctypes.c_void_p)


class Owner:
    """Base of a class whose methods have a common case: to call one of its `functions.Functions`."""

    __slots__ = ("_functions",)

    _functions: functions.Functions


_lock = threading.Lock()
_replaced: list[type[Owner]] = []


def replace(owner: type[Owner]) -> None:
    """Replace a class's methods by ones that call these only where theirs is not the common case.

    That is ``method(*inputs, out=outputs)``, where there is a function already and it returns True.
    """
    with _lock:  # A second thread would take the new methods for those in Python.
        if owner not in _replaced:
            _replace(owner)
            _replaced.append(owner)


def _replace(owner: type[Owner]) -> None:
    functions.check_layout()
    _check_slots()
    binding.add_symbol(_OUT, id(sys.intern("out")))
    methods = {name: getattr(owner, name) for name in _NAMES}
    for name, method in methods.items():
        binding.add_symbol(_symbol(name) + _SLOW, id(method))
    library = functions.library_of("fastjac.methods", _emit_all)
    for name, method in methods.items():
        address = library.get_pointer_to_function(_symbol(name))
        flags = _METH_FASTCALL | _METH_KEYWORDS
        definition = functions.Definition(name.encode(), address, flags, _documentation(method))
        _kept.append((library, definition, method))
        setattr(owner, name, _new_method(owner, ctypes.addressof(definition)))


_kept: list[Any] = []


def _emit_all(module: ir.Module) -> None:
    for name in _NAMES:
        _emit(module, name)


def _symbol(name: str) -> str:
    return f"fastjac.methods.{name}"


def _documentation(method: Any) -> bytes:
    """Return a method's docstring as compiled ones have it, with the signature in the first line."""
    signature = inspect.signature(method)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    bare = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    first = f"{method.__name__}{bare.replace('self', '$self', 1)}"
    return f"{first}\n--\n\n{inspect.getdoc(method) or ''}".encode()


def _slot(name: str) -> int:
    return _SLOTS + 8 * sorted(functions.Functions.__slots__).index(name)


def _check_slots() -> None:
    """Raise RuntimeError if the slots of a class are not where they are expected."""
    made, owner = object.__new__(functions.Functions), Owner()
    owner._functions = made
    for name in functions.NAMES:
        setattr(made, name, name)
    places = [(owner, _SLOTS, made)] + [(made, _slot(name), name) for name in functions.NAMES]
    for holder, offset, held in places:
        if ctypes.c_ssize_t.from_address(id(holder) + offset).value != id(held):
            raise RuntimeError(f"Python {sys.version} lays slots out in a way that fastjac does not know")


def _emit(module: ir.Module, name: str) -> None:
    """Emit ``PyObject *f(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)``."""
    kind = ir.FunctionType(BYTE_POINTER, [BYTE_POINTER, BYTE_POINTER, INT, BYTE_POINTER])
    function = ir.Function(module, kind, _symbol(name))
    builder = ir.IRBuilder(function.append_basic_block())
    slow = function.append_basic_block("slow")
    read = functools.partial(functions.emit_read, builder, kind=BYTE_POINTER)
    call = functools.partial(functions.emit_call, builder)
    null = BYTE_POINTER(None)
    _, n_read = functions.SHAPES[name]

    def external(name: str) -> ir.Value:
        return module.globals.get(name) or ir.GlobalVariable(module, ir.IntType(8), name)

    def go_on(condition: ir.Value) -> None:
        following = function.append_basic_block()
        builder.cbranch(condition, following, slow)
        builder.position_at_end(following)

    owner, arguments, count, names = function.args
    keyword, positional, common = (function.append_basic_block() for _ in range(3))
    builder.cbranch(builder.icmp_unsigned("!=", names, null), keyword, positional)
    builder.position_at_end(positional)
    builder.cbranch(builder.icmp_signed("==", count, INT(n_read + 1)), common, slow)
    builder.position_at_end(keyword)
    go_on(builder.icmp_signed("==", count, INT(n_read)))
    go_on(builder.icmp_signed("==", read(names, functions.LENGTH, kind=INT), INT(1)))
    go_on(builder.icmp_unsigned("==", read(names, functions.ITEMS), external(_OUT)))
    builder.branch(common)
    builder.position_at_end(common)
    routine = read(read(owner, _SLOTS), _slot(name))
    go_on(builder.icmp_unsigned("!=", routine, null))
    # Of Python's ways to call with arguments in a row the one that 3.10 exports too: names come as a dict.
    fits = call("PyObject_VectorcallDict", BYTE_POINTER, routine, arguments, INT(n_read + 1), null)
    with builder.if_then(builder.icmp_unsigned("==", fits, null), likely=False):
        builder.ret(null)  # Python's stack is too deep.
    call("Py_DecRef", ir.VoidType(), fits)
    go_on(builder.icmp_unsigned("==", fits, external("_Py_TrueStruct")))
    outputs = read(arguments, 8 * n_read)
    call("Py_IncRef", ir.VoidType(), outputs)
    builder.ret(outputs)
    builder.position_at_end(slow)
    method = call("PyMethod_New", BYTE_POINTER, external(_symbol(name) + _SLOW), owner)
    named = call("PyDict_New", BYTE_POINTER)
    made = [builder.icmp_unsigned("!=", value, null) for value in (method, named)]
    with builder.if_then(builder.not_(builder.and_(*made)), likely=False):
        builder.ret(null)
    with builder.if_then(builder.icmp_unsigned("!=", names, null)):
        loop = Loop(builder, INT(0), read(names, functions.LENGTH, kind=INT), 1, [])
        key = read(names, builder.add(builder.mul(loop.i, INT(8)), INT(functions.ITEMS)))
        value = read(arguments, builder.mul(builder.add(loop.i, count), INT(8)))
        call("PyDict_SetItem", INT32, named, key, value)
        loop.close([])
    result = call("PyObject_VectorcallDict", BYTE_POINTER, method, arguments, count, named)
    call("Py_DecRef", ir.VoidType(), named)
    call("Py_DecRef", ir.VoidType(), method)
    builder.ret(result)
