"""Counts what Python's allocators are asked for, by functions of a few instructions put in front of them."""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT

_DOMAINS = (0, 1, 2)  # raw memory, Python's memory, objects
# Functions of PyMemAllocatorEx -> how many arguments follow the context; `free` is not counted.
_FUNCTIONS = {"malloc": 1, "calloc": 2, "realloc": 2, "free": 1}


class _Allocator(ctypes.Structure):
    """CPython's PyMemAllocatorEx."""

    _fields_ = [("context", ctypes.c_void_p), *((name, ctypes.c_void_p) for name in _FUNCTIONS)]


class _Counted(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int64), ("allocator", _Allocator)]


def _emit(module: ir.Module, name: str, number: int) -> None:
    """Emit function ``number`` of an allocator whose context is a `_Counted`."""
    arguments = [INT] * _FUNCTIONS[name]
    kind = ir.FunctionType(INT, [BYTE_POINTER, *arguments])
    function = ir.Function(module, kind, f"fastjac.counted.{name}")
    builder = ir.IRBuilder(function.append_basic_block())
    fields = builder.bitcast(function.args[0], INT.as_pointer())
    if name != "free":
        builder.atomic_rmw("add", fields, INT(1), "monotonic")
    context, target = (builder.load(builder.gep(fields, [INT(i)])) for i in (1, 2 + number))
    original = ir.FunctionType(INT, [INT, *arguments]).as_pointer()
    result = builder.call(builder.inttoptr(target, original), [context, *function.args[1:]])
    builder.ret(result)


@global_compiler_lock
@functools.cache
def _library() -> Any:
    library = cpu_target.target_context.codegen().create_library("fastjac.allocations")
    module = library.create_ir_module("fastjac.allocations")
    for number, name in enumerate(_FUNCTIONS):
        _emit(module, name, number)
    library.add_ir_module(module)
    library.finalize()
    return library


def allocations(call: Callable[[], object], calls: int) -> float:
    """Return how many times a call asks Python's allocators for memory, the mean over ``calls``."""
    functions = [_library().get_pointer_to_function(f"fastjac.counted.{name}") for name in _FUNCTIONS]
    counted = [_Counted() for _ in _DOMAINS]
    get, put = ctypes.pythonapi.PyMem_GetAllocator, ctypes.pythonapi.PyMem_SetAllocator
    for domain, each in zip(_DOMAINS, counted, strict=True):
        get(domain, ctypes.byref(each.allocator))
    hooks = [_Allocator(ctypes.addressof(each), *functions) for each in counted]
    repeats = range(calls)

    def total(run: Callable[[], object]) -> int:
        for domain, hook in zip(_DOMAINS, hooks, strict=True):
            put(domain, ctypes.byref(hook))
        try:
            before = sum(each.count for each in counted)
            for _ in repeats:
                run()
            made: int = sum(each.count for each in counted) - before
            return made
        finally:
            for domain, each in zip(_DOMAINS, counted, strict=True):
                put(domain, ctypes.byref(each.allocator))

    return max(0, total(call) - total(int)) / calls
