"""Compiles the routines, each for one signature, and keeps the machine code in files.

numba's own cache stamps a function with the one file that it is in, wants a folder that it may write to
where reading would do, and takes a damaged file's word. Here a file's name holds a digest of all that the
code comes from, so that another version of fastjac, another processor or another compiler use other files
and processes that start together agree; the file begins with a digest of the rest.
"""

# numba's compiler is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import os
import pickle
import sys
import types as python_types
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding, ir
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from fastjac.kernels import sources
from fastjac.kernels.linking import OUTERMOST

if config.DISABLE_JIT:
    raise ImportError("fastjac computes in compiled code only: unset NUMBA_DISABLE_JIT")

_DIGEST_BYTES = hashlib.sha256().digest_size
_CODE_SETTINGS = ("BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE")


@functools.cache
def fingerprint() -> str:
    """Return a digest of the kernels' source, the compilers' versions and the processor compiled for."""
    target = cpu_target.target_context.codegen().magic_tuple()
    versions = numba.__version__, llvmlite.__version__, sys.implementation.cache_tag
    settings = [repr(getattr(config, name)) for name in _CODE_SETTINGS]
    return hashlib.sha256(repr((sources.digest(), target, versions, settings)).encode()).hexdigest()


def folders() -> list[Path]:
    """Return where compiled code is looked for, in this order; it is written to the first that can be.

    ``NUMBA_CACHE_DIR`` alone where it is set, else beside the kernels and in the user's cache folder.
    """
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR, "fastjac")]
    user = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir, "fastjac")
    beside = Path(__file__).with_name("__pycache__")
    return [beside, user] if user.is_absolute() else [beside]  # "~/..." where there is no home


class File:
    """What numba's dispatcher takes for its cache: the file of one routine.

    Attributes
    ----------
    path : Path or None
        The file that the code was read from or written to.
    compiled : bool
        Whether the routine was compiled in this process.
    """

    def __init__(self, name: str, module_name: str | None = None) -> None:
        digest = fingerprint()
        if module_name is not None:
            digest = hashlib.sha256(repr((digest, sources.content(module_name))).encode()).hexdigest()
        self.name = f"{name}-{digest[:32]}.nbc"
        self.path: Path | None = None
        self.compiled = False

    @property
    def cache_path(self) -> str | None:
        """The folder, for numba's statistics."""
        return str(self.path.parent) if self.path else None

    def read(self) -> bytes | None:
        """Return what `write` was given, in whatever process, or None."""
        for folder in folders():
            with contextlib.suppress(OSError):
                content = (folder / self.name).read_bytes()
                digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
                if hashlib.sha256(payload).digest() == digest:
                    self.path = folder / self.name
                    return payload
        return None

    def write(self, payload: bytes) -> None:
        """Write the file, if there is a folder for it."""
        content = hashlib.sha256(payload).digest() + payload
        for folder in folders():
            with contextlib.suppress(OSError):
                replace_file(folder / self.name, content)
                self.path = folder / self.name
                return
        _warn_in_memory()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what `save_overload` was given, in whatever process, or None."""
        payload = self.read()
        return None if payload is None else _rebuilt(context, payload)

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled routine."""
        self.compiled = True
        self.write(_reduced(result))


class Overloads:
    """What numba's dispatcher takes for its cache: a file for each signature of a function.

    Functions that call this one copy its instructions, so these are kept beside the machine code.
    """

    cache_path = None

    def __init__(self, name: str, module_name: str) -> None:
        self._name, self._module_name = name, module_name

    def _file(self, signature: Any) -> File:
        digest = hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
        return File(f"{self._name}-{digest}", self._module_name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what `save_overload` was given, in whatever process, or None."""
        payload = self._file(signature).read()
        if payload is None:
            return None
        reduced, bitcode = pickle.loads(payload)
        result = _rebuilt(context, reduced)
        result.library._get_module_for_linking = functools.cache(lambda: binding.parse_bitcode(bitcode))
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a compiled function."""
        bitcode = result.library._get_module_for_linking().as_bitcode()
        self._file(signature).write(pickle.dumps((_reduced(result), bitcode)))


def _reduced(result: Any) -> bytes:
    """Return what `_rebuilt` makes the compiled routine of again, in a tenth of the time that numba takes."""
    (name, kind, (code, _)), descriptor, *parts, _ = result._reduce()
    symbols = descriptor.llvm_func_name, descriptor.llvm_cpython_wrapper_name
    declared = binding.parse_assembly("".join(f'@"{symbol}" = global i8 0\n' for symbol in symbols))
    # The last of all are the environments of the functions called, for exceptions and conversions to Python
    # objects, of which there are none. To read them imports numba's array functions.
    reduced: bytes = dumps(((name, kind, (code, declared.as_bitcode())), descriptor, *parts, ()))
    return reduced


def _rebuilt(context: Any, reduced: bytes) -> Any:
    # numba's runtime, but for what numba would compile of it now: the routine contains that.
    for name, address in _nrt_python.c_helpers.items():
        binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
    if config.NRT_STATS:
        _nrt_python.memsys_enable_stats()
    result = CompileResult._rebuild(context, *pickle.loads(reduced))
    # Who calls the routine from compiled code gets to its machine code, where numba copies instructions.
    result.library._get_module_for_linking = functools.cache(lambda: binding.parse_assembly(""))
    return result


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it finds the old content or all of the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _warn_in_memory() -> None:
    warnings.warn(
        "fastjac can write compiled code to no folder and compiles in each process: "
        "set NUMBA_CACHE_DIR to a writable one, or run `fastjac warmup` where the package can be written",
        RuntimeWarning,
        stacklevel=2,
    )


@functools.cache
def _announce() -> None:
    print(
        "fastjac: compiling for this processor, five to ten seconds; `fastjac warmup` does it ahead",
        file=sys.stderr,
    )


_compiled: dict[str, Any] = {}


def _dispatcher(function: Callable[..., Any]) -> Any:
    return numba.njit(nogil=True, error_model="numpy", **OUTERMOST)(function)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from searching all that numba has made for cycles: 6 % of the time, for 50 MB."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def compiled(function: Callable[..., Any], name: str, signature: Any, is_slow: bool = False) -> Any:
    """Return ``function`` compiled for ``signature`` alone, from its file where there is one.

    ``name`` tells it from all others. If it ``is_slow`` to compile, a line on standard error says so.
    """
    with global_compiler_lock:  # Threads that want the same function wait for the first.
        if name not in _compiled:
            code, closure = function.__code__, function.__closure__
            copy = python_types.FunctionType(code, function.__globals__, name, None, closure)
            copy.__qualname__ = name
            dispatcher = _dispatcher(copy)
            dispatcher._cache = file = File(name)
            if is_slow and file.read() is None:
                _announce()
            with _without_collections():
                dispatcher.compile(signature)
            dispatcher.disable_compile()
            _compiled[name] = dispatcher
        return _compiled[name]


def instructions(routine: Any) -> tuple[str, Any]:
    """Return the name of what `compiled` returned in a module of LLVM's, and the module.

    Few ask for it, and it is three times as large as the machine code: it has a file of its own, from the
    first time on. Where the code was found in its file, that takes as long as to compile it again.
    """
    with global_compiler_lock:
        file = File(f"{routine.py_func.__name__}_ir")
        payload = file.read()
        if payload is None:
            if not file_of(routine).compiled:
                (signature,) = routine.nopython_signatures
                routine = _dispatcher(routine.py_func)
                routine.compile(signature)
            (result,) = routine.overloads.values()
            module = result.library._final_module
            payload = pickle.dumps((result.fndesc.llvm_func_name, module.as_bitcode()))
            file.write(payload)
    name, bitcode = pickle.loads(payload)
    return name, binding.parse_bitcode(bitcode)


def library_of(symbol: str, emit: Callable[[ir.Module], None]) -> Any:
    """Return numba's library of what ``emit`` writes into a module, from its file if there is one."""
    file = File(symbol.replace(".", "_"))
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        payload = file.read()
        if payload is not None:
            return codegen.unserialize_library(pickle.loads(payload))
        library = codegen.create_library(symbol)
        library.enable_object_caching()
        module = library.create_ir_module(symbol)
        emit(module)
        library.add_ir_module(module)
        library.finalize()
        file.write(pickle.dumps(library.serialize_using_object_code()))
        return library


def address_of(routine: Any) -> int:
    """Return the address of the machine code of what `compiled` returned, there as long as the process."""
    (result,) = routine.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def file_of(routine: Any) -> File:
    """Return where the code of what `compiled` returned is kept."""
    file: File = routine._cache
    return file
