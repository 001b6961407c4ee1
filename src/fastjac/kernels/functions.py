"""The way in from Python: the routines as functions of arrays, whose machine code `entries` emits."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastjac.kernels import machine_code
from fastjac.kernels.context import Context
from fastjac.kernels.contexts import Contexts
from fastjac.kernels.interpreter import ITEMS, check_layout, definition, new_array_address, new_function
from fastjac.kernels.signatures import CALLS


class _Table:
    """The array that a function is bound to, which keeps what its addresses point to."""

    def __init__(self, fields: Sequence[int], *kept: object) -> None:
        self._fields, self._kept = np.array(fields, np.int64), kept

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._fields.__array_interface__


def bound(
    name: str, dtype: np.dtype[Any], contexts: Contexts, most: int, releases: bool
) -> Callable[..., Any]:
    """Return a routine as ``f(*inputs, outputs)``, which returns the outputs.

    Parameters
    ----------
    name : str
        One of `CALLS`.
    dtype : dtype
        Of all arrays.
    contexts : Contexts
        Of the network.
    most : int
        Samples of the longest batch.
    releases : bool
        Whether other threads run meanwhile also in the case of one sample.

    Returns
    -------
    callable
        It takes ndarrays of the right shapes for one sample or (B, ...) for up to ``most``, of ``dtype``,
        C-contiguous and aligned; ``outputs`` is None or a tuple of arrays that are writable besides and
        overlap no other, each of which may be None. It makes those that are None. It returns a tuple of all
        outputs, ``outputs`` itself if that has no None; False, with nothing written, if an argument is
        anything else; None, with nothing written, if none of the ``contexts`` is free.
    """
    nones = (None,) * len(CALLS[name].outputs)
    known = (id(tuple), id(np.ndarray), id(dtype))
    sizes = (*contexts.sizes, contexts.hidden, releases, most)
    fields = (contexts.address, machine_code.routine(contexts.is_graph, dtype), *known, *sizes)
    table = _Table([*fields, id(None), id(nones), new_array_address(), ITEMS], contexts, nones)
    function: Callable[..., Any] = new_function(_definition("call", name, dtype), np.asarray(table))
    return function


def step(
    name: str,
    dtype: np.dtype[Any],
    context: Context,
    arrays: Sequence[np.ndarray[Any, Any]],
    result: object,
    samples: int,
    releases: bool,
) -> Callable[[], Any]:
    """Return a function without arguments that calls a routine with the same arrays again, unchecked.

    It returns ``result`` and keeps all that it is given. A call that overlaps another raises RuntimeError.
    """
    pointers = [int(array.ctypes.data) for array in arrays]
    fields = [
        context.address,
        machine_code.routine(context.is_graph, dtype),
        releases,
        id(result),
        samples,
        id(RuntimeError),
    ]
    table = _Table(fields + pointers, context, tuple(arrays), result)
    function: Callable[[], Any] = new_function(_definition("step", name, dtype), np.asarray(table))
    return function


_definitions: dict[tuple[str, str, np.dtype[Any]], Any] = {}
_lock = threading.RLock()  # A signal handler may call a network.


def _definition(kind: str, name: str, dtype: np.dtype[Any]) -> Any:
    """Return Python's description of a function's machine code, the same for all threads that ask at once.

    A function points to its description, so none may be dropped for another.
    """
    with _lock:
        if (kind, name, dtype) not in _definitions:
            check_layout()
            address = machine_code.address(kind, name, dtype)
            _definitions[kind, name, dtype] = definition(name, address, takes_arguments=kind == "call")
        return _definitions[kind, name, dtype]


def changes(dtype: np.dtype[Any]) -> Callable[..., int]:
    """Return ``f(context, x, to, each, first, inputs, y) -> done``, of addresses and numbers: see `changes`.

    It is called as numba calls its functions: with pointers to the result and to what an exception would be.
    """
    arguments = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 7
    code = ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)(machine_code.address("routine", "changes", dtype))

    def run(*given: int) -> int:
        done, error = ctypes.c_int64(), ctypes.c_void_p()
        code(ctypes.addressof(done), ctypes.addressof(error), *given)
        return done.value

    return run
