"""A network for callers without Python: handles for njit functions, and C functions."""

from __future__ import annotations

import ctypes
import weakref
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.embedding import c_function
from fastjac.embedding.c_function import BUSY, CLOSED, value_and_jacobian
from fastjac.kernels.context import Context
from fastjac.kernels.packing import Packed
from fastjac.kernels.routines import MISMATCH, OK

__all__ = ["BUSY", "CLOSED", "MISMATCH", "OK", "CFunction", "handle", "value_and_jacobian"]

_NUMBERS = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}
# Records of C functions: a pointer to one may be in use anywhere, so they are never freed.
_records: list[NDArray[np.int64]] = []
# Memory of networks that were collected in the middle of a call.
_in_use: list[Context] = []


class _Handle:
    """The owner of a handle's memory, with a context that no thread uses otherwise."""

    def __init__(self, packed: Packed) -> None:
        self.context = Context(packed)
        self.record = _record(packed, self.context)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.record.__array_interface__


def _record(packed: Packed, context: Context) -> NDArray[np.int64]:
    record = np.zeros(c_function.FIELDS, np.int64)
    sizes = packed.plan.sizes
    c_function.fill(record, packed.layers[0].w.dtype, sizes[0], sizes[-1], context.address)
    return record


def handle(packed: Packed) -> NDArray[np.int64]:
    """Return a new handle, which keeps all that it needs; see `Network.handle`."""
    return np.asarray(_Handle(packed))


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

    def __init__(self, packed: Packed) -> None:
        dtype = packed.layers[0].w.dtype
        memory = Context(packed)
        record = _record(packed, memory)
        _records.append(record)
        name, kind = _NUMBERS[dtype.name]
        self.address = c_function.functions(dtype).call
        self.context = int(record.ctypes.data)
        self.signature = f"int (void *context, const {name} *x, {name} *y, {name} *jac)"
        arrays = [ctypes.POINTER(kind)] * 3
        self.ctypes: Any = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *arrays)(self.address)
        self._refuse = c_function.functions(dtype).close
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
