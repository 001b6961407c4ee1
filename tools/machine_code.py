"""Writes the machine code that a wheel ships: ``python tools/machine_code.py``, then ``python -m build``.

It takes a minute for each kind of processor; arguments name those that are wanted, all without. Each is
compiled in a process of its own, for which this processor need not be of that kind.
"""

# llvmlite is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from llvmlite import binding
from numba.core.registry import cpu_target

from fastjac.embedding import object_file
from fastjac.kernels import cache, compiling, machine_code
from fastjac.kernels.machine_code import LEVELS
from fastjac.kernels.signatures import symbol_of
from fastjac.layers import FLOATS

# What machine code may call besides LLVM's own functions.
LIBRARY = object_file.LIBRARY | {
    *("PyBool_FromLong", "PyErr_SetString", "PyEval_RestoreThread", "PyEval_SaveThread", "PyTuple_New"),
    *("Py_DecRef", "Py_IncRef"),
}
# LLVM would rather not use the widest vectors of processors in general.
MORE = {"x86-64-v4": ["-prefer-256-bit"]}


def main() -> None:
    """Compile for each kind of processor in a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("levels", nargs="*", default=list(LEVELS), metavar="LEVEL", help=", ".join(LEVELS))
    parser.add_argument("--dtype", choices=[str(dtype) for dtype in FLOATS], help="default: both")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    args = parser.parse_args()
    dtypes = [dtype for dtype in FLOATS if args.dtype in (None, str(dtype))]
    for level in args.levels:
        for dtype in dtypes:
            if args.here:
                write(level, dtype)
            else:
                start(level, dtype)


def start(level: str, dtype: np.dtype[Any]) -> None:
    """Have a child process compile for a kind of processor."""
    features = [f"+{name}" for name in LEVELS[level].split()] + MORE.get(level, [])
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "NUMBA_CPU_NAME": level,
            "NUMBA_CPU_FEATURES": ",".join(features),
            "NUMBA_CACHE_DIR": folder,
        }
        command = [sys.executable, __file__, level, "--dtype", str(dtype), "--here"]
        subprocess.run(command, env={**os.environ, **settings}, check=True)


def write(level: str, dtype: np.dtype[Any]) -> None:
    """Write the file of a kind of processor, for which this process compiles."""
    path = machine_code.file_of(level, dtype)
    path.parent.mkdir(exist_ok=True)
    content = machine_code.packed(level, dtype, object_code(dtype))
    path.write_bytes(content)
    print(f"{path.name}  {len(content) / 1000:.0f} kB", flush=True)


def object_code(dtype: np.dtype[Any]) -> bytes:
    """Return an object file of all functions of a dtype."""
    emitted = cpu_target.target_context.create_module("fastjac")
    for kind, names in compiling.EMITTED.items():
        for name in names:
            compiling.emit(emitted, kind, name, dtype)
    object_file.emit_unreached(emitted, "NRT_MemInfo_call_dtor")
    public = {function.name for function in emitted.functions if not function.is_declaration}
    linked = binding.parse_assembly(str(emitted))
    for kind, names in compiling.COMPILED.items():
        for name in names:
            symbol, module = cache.instructions(compiling.compiled(kind, name, dtype))
            module.get_function(symbol).name = symbol_of(kind, name, dtype)
            public.add(symbol_of(kind, name, dtype))
            object_file.hide(module, public)
            linked.link_in(module)
    return object_file.emit(linked, cpu_target.target_context.codegen()._tm, LIBRARY)


if __name__ == "__main__":
    main()
