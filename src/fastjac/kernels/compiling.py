"""Compiles the routines, each for one signature, and keeps them in numba's cache on disk.

numba's own stamp on a cached function knows the file that the function is in and no other. Ours knows
all that the machine code comes from, and is part of the file's name: another version of fastjac, another
processor and another dtype use other files, so that processes which start together never mix them up.
"""

# numba's caching is not typed.
# mypy: disable-error-code="misc, no-untyped-call, no-untyped-def"

from __future__ import annotations

import functools
import hashlib
import types as python_types
import warnings
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import llvmlite
import numba
from numba.core import caching, config
from numba.core.registry import cpu_target


@functools.cache
def fingerprint() -> str:
    """Return a digest of the kernels' source, the compilers' versions and the processor compiled for."""
    parts = sorted((path.name, path.read_bytes()) for path in files(__package__).iterdir() if path.is_file())
    parts.append(("layers.py", files("fastjac").joinpath("layers.py").read_bytes()))
    target = cpu_target.target_context.codegen().magic_tuple()
    settings = (numba.__version__, llvmlite.__version__, target, config.BOUNDSCHECK, config.OPT)
    return hashlib.sha256(repr((parts, settings)).encode()).hexdigest()


class _Fingerprinted:
    """What replaces numba's stamp in its classes that find a folder to cache in."""

    def get_source_stamp(self):
        return fingerprint()

    def get_disambiguator(self):
        return fingerprint()[:16]


class _UserProvided(_Fingerprinted, caching.UserProvidedCacheLocator):
    pass


class _InTree(_Fingerprinted, caching.InTreeCacheLocator):
    pass


class _UserWide(_Fingerprinted, caching.UserWideCacheLocator):
    pass


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = [_UserProvided, _InTree, _UserWide]  # noqa: RUF012 - numba's name


class _Cache(caching.FunctionCache):
    """A cache whose failures cost a compilation, not the call."""

    _impl_class = _CacheImpl

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # Whatever a damaged file makes of unpickling.
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except OSError as error:
            warnings.warn(f"fastjac cannot cache compiled code: {error}", RuntimeWarning, stacklevel=2)


@functools.cache
def _warn_in_memory() -> None:
    warnings.warn(
        "fastjac finds no folder to cache compiled code in, and compiles in each process: "
        "set NUMBA_CACHE_DIR to a writable one",
        RuntimeWarning,
        stacklevel=2,
    )


def compiled(function: Callable[..., Any], name: str, signature: Any) -> Any:
    """Return ``function`` compiled for ``signature`` alone, from the cache where it is there."""
    copy = python_types.FunctionType(function.__code__, function.__globals__, name)
    copy.__qualname__ = name
    dispatcher = numba.njit(nogil=True, error_model="numpy")(copy)
    try:
        dispatcher._cache = _Cache(copy)
    except RuntimeError:  # "no locator available"
        _warn_in_memory()
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher
