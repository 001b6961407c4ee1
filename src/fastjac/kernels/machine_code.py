"""Where the machine code is that calls run: shipped with the package, or compiled on this machine.

A wheel may bring object files for a few kinds of processor. They are loaded without numba, which takes longer
to import than everything else together. Code is shipped for Linux on x86-64. It runs only if it was made of
the very sources beside it, for objects that Python and NumPy lay out as here, and is complete.
"""

# llvmlite is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib
import lzma
import os
import platform
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastjac.kernels.interpreter import LAYOUT
from fastjac.kernels.signatures import symbol_of
from fastjac.kernels.sources import digest
from fastjac.kernels.target import Target, target_of

# The kinds of processor that code is shipped for, the best first: which features code may use.
LEVELS = {
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave",
    "x86-64-v3": "avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave",
    "x86-64-v2": "cx16 sahf popcnt sse3 sse4.1 sse4.2 ssse3",
}
_FOLDER = Path(__file__).with_name("shipped")
# Who sets one of these wants other code than what is shipped.
SETTINGS = (
    "FASTJAC_NATIVE",
    *("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX", "NUMBA_OPT", "NUMBA_LOOP_VECTORIZE"),
    *("NUMBA_SLP_VECTORIZE", "NUMBA_BOUNDSCHECK", "NUMBA_DEBUGINFO", "NUMBA_DISABLE_JIT"),
)


class _Shipped(NamedTuple):
    """Shipped code that was loaded: LLVM's engine, the vector unit it is for, and its file."""

    engine: Any
    target: Target
    path: Path


_lock = threading.RLock()  # A signal handler may call a network.
_loaded: dict[np.dtype[Any], _Shipped | None] = {}
_found: dict[tuple[str, str, np.dtype[Any]], int] = {}


def address(kind: str, name: str, dtype: np.dtype[Any]) -> int:
    """Return the address of a function's machine code, which stays for as long as the process.

    `compiling` lists the kinds and their names.
    """
    with _lock:
        if (kind, name, dtype) not in _found:
            loaded = _load(dtype)
            _found[kind, name, dtype] = (
                int(loaded.engine.get_function_address(symbol_of(kind, name, dtype)))
                if loaded
                else _compiling().address(kind, name, dtype)
            )
        return _found[kind, name, dtype]


def routine(is_graph: bool, dtype: np.dtype[Any]) -> int:
    """Return the address of the routine that computes networks."""
    return address("routine", "graph" if is_graph else "chain", dtype)


def target(dtype: np.dtype[Any]) -> Target:
    """Return the vector unit that the code of a dtype is for."""
    loaded = _load(dtype)
    return loaded.target if loaded else _compiling().TARGET


def shipped_file(dtype: np.dtype[Any]) -> Path | None:
    """Return the shipped file that the code of a dtype comes from, None where it is compiled."""
    loaded = _load(dtype)
    return loaded.path if loaded else None


def file_of(level: str, dtype: np.dtype[Any]) -> Path:
    """Return where the code of a dtype is for a kind of processor, if it is shipped."""
    return _FOLDER / f"{level}-{dtype}.xz"


def packed(level: str, dtype: np.dtype[Any], code: bytes) -> bytes:
    """Return what the file of an object file's bytes holds: two digests, and the bytes compressed."""
    payload = lzma.compress(code, preset=9)
    return _expected(level, dtype) + hashlib.sha256(payload).digest() + payload


def _unpacked(level: str, dtype: np.dtype[Any]) -> bytes | None:
    """Return the bytes of an object file, None where there is none that may run."""
    try:
        content = file_of(level, dtype).read_bytes()
    except OSError:
        return None
    made_of, whole, payload = content[:32], content[32:64], content[64:]
    if made_of != _expected(level, dtype) or whole != hashlib.sha256(payload).digest():
        return None
    return lzma.decompress(payload)


def _expected(level: str, dtype: np.dtype[Any]) -> bytes:
    """Return a digest of all that code depends on."""
    return hashlib.sha256(repr((digest(), LAYOUT, level, str(dtype))).encode()).digest()


def level() -> str | None:
    """Return the kind of this processor, None where no code for it can be shipped.

    That is where a compiler would use other vectors than that kind has: what is packed fits both.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    from llvmlite import binding

    has = binding.get_host_cpu_features()
    for name, needed in LEVELS.items():
        if all(has.get(feature) for feature in needed.split()):
            return name if _target(name) == target_of("x86_64", has.flatten()) else None
    return None


def _target(name: str) -> Target:
    return target_of("x86_64", ",".join(f"+{feature}" for feature in LEVELS[name].split()))


def _load(dtype: np.dtype[Any]) -> _Shipped | None:
    """Return the shipped code for this processor, if there is any, loaded once."""
    with _lock:
        if dtype not in _loaded:
            _loaded[dtype] = _load_file(dtype)
        return _loaded[dtype]


def _load_file(dtype: np.dtype[Any]) -> _Shipped | None:
    if not _FOLDER.is_dir() or any(os.environ.get(name) for name in SETTINGS):
        return None
    name = level()
    code = _unpacked(name, dtype) if name else None
    if name is None or code is None:
        return None
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return _Shipped(engine, _target(name), file_of(name, dtype))


def _compiling() -> Any:
    from fastjac.kernels import compiling

    return compiling
