"""Has each function that `machine_code` is asked for compiled, or finds it in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir

from fastjac.kernels import activations, c_entries, changes, entries, routines
from fastjac.kernels.cache import address_of, file_of, instructions, library_of
from fastjac.kernels.llvm.vectors import TARGET
from fastjac.kernels.signatures import CALLS, SIGNATURES, symbol_of

__all__ = ["COMPILED", "EMITTED", "TARGET", "address", "compiled", "emit", "everything"]

# Kind -> the functions of that kind which numba compiles, and those that consist of a few instructions.
COMPILED = {"routine": ("chain", "graph", "changes"), "activation": activations.NAMES}
EMITTED = {"call": tuple(CALLS), "step": tuple(SIGNATURES), "record": ("call", "close")}


def compiled(kind: str, name: str, dtype: np.dtype[Any]) -> Any:
    """Return numba's dispatcher of a routine or an activation."""
    if kind == "activation":
        return activations.routine(name, dtype)
    return changes.routine(dtype) if name == "changes" else routines.routine(dtype, name == "graph")


def emit(module: ir.Module, kind: str, name: str, dtype: np.dtype[Any]) -> None:
    """Emit a function that consists of a few instructions."""
    symbol = symbol_of(kind, name, dtype)
    if kind == "record":
        c_entries.emit(module, name, symbol)
    else:
        entries.emit(module, kind, name, symbol, dtype)


def address(kind: str, name: str, dtype: np.dtype[Any]) -> int:
    """Return the address of a function's machine code, which stays for as long as the process."""
    if kind in COMPILED:
        return address_of(compiled(kind, name, dtype))
    symbol = symbol_of(kind, name, dtype)
    library = library_of(symbol, lambda module: emit(module, kind, name, dtype))
    return int(library.get_pointer_to_function(symbol))


def everything(dtype: np.dtype[Any]) -> tuple[bool, Path | None]:
    """Have all functions of a dtype ready, and what exported networks consist of.

    Return whether a routine was compiled in this process, and the file of the routine for layers in a row.
    """
    for kind, names in (COMPILED | EMITTED).items():
        for name in names:
            address(kind, name, dtype)
    made = [compiled("routine", name, dtype) for name in ("chain", "graph")]
    for each in made:
        if file_of(each).compiled:
            instructions(each)
    return any(file_of(each).compiled for each in made), file_of(made[0]).path
