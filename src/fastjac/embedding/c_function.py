"""A network as a C function, for callers without Python."""

from __future__ import annotations

import ctypes
import weakref
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.embedding import records
from fastjac.kernels.context import Context
from fastjac.kernels.contexts import Weights, new_context

_NUMBERS = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}
# Records of C functions: a pointer to one may be in use anywhere, so they are never freed.
_records: list[NDArray[np.int64]] = []
# Memory of networks that were collected in the middle of a call.
_in_use: list[Context] = []


class CFunction:
    """A network as a C function; made by `Network.c_function`.

    The function takes one call at a time and then returns `BUSY`: make one for each thread. It keeps the
    network's memory until it is closed or nothing refers to it any more; from then on it returns `CLOSED`.

    Attributes
    ----------
    address : int
        Of the function.
    context : int
        The pointer to hand over as its first argument; never reused for another network.
    signature : str
        ``int (void *context, const T *x, T *y, T *jac)`` with T ``float`` or ``double``: ``x`` (N,) is
        read, ``y`` (M,) and ``jac`` (M, N), row by row, are written. Returns `OK`, or, with nothing
        written, `MISMATCH` for null pointers and arrays that overlap, `BUSY` or `CLOSED`.
    ctypes : ctypes function
        The same for `ctypes` and ``scipy.LowLevelCallable``; it releases the GIL while it runs.
    """

    def __init__(self, packed: Weights) -> None:
        memory = new_context(packed)
        record = records.make(packed, memory)
        _records.append(record)
        name, kind = _NUMBERS[packed.dtype.name]
        functions = records.functions(packed.dtype)
        self.address = functions.call
        self.context = int(record.ctypes.data)
        self.signature = f"int (void *context, const {name} *x, {name} *y, {name} *jac)"
        arrays = [ctypes.POINTER(kind)] * 3
        self.ctypes: Any = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *arrays)(self.address)
        self._refuse = functions.close
        self._memory = [memory]
        weakref.finalize(self, _collect, self._refuse, self.context, self._memory)

    def close(self) -> None:
        """Refuse all further calls and give the memory back.

        Raises
        ------
        RuntimeError
            If a call is running in another thread; nothing has changed then.
        """
        if self._refuse(self.context):
            raise RuntimeError("a call of the C function is running")
        self._memory.clear()

    def __enter__(self) -> CFunction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"at {self.address:#x}, context {self.context:#x}" if self._memory else "closed"
        return f"CFunction({self.signature}, {state})"


def _collect(refuse: Any, context: int, memory: list[Context]) -> None:
    if refuse(context):
        _in_use.extend(memory)
    memory.clear()
