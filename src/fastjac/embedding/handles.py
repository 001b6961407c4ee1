"""A network for njit functions: handles, and the function that takes them.

A handle is the record of a network as an array. A copy of it, or one that was pickled, points to memory that
may be gone. So this process keeps a list of the handles that are alive, and the function looks there before
it follows a pointer.
"""

# numba's decorators are not typed.
# mypy: disable-error-code="no-any-return, no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import secrets
import threading
import weakref
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import errors, from_dtype, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastjac.embedding import records
from fastjac.kernels import c_entries
from fastjac.kernels.cache import Overloads
from fastjac.kernels.contexts import Weights, new_context
from fastjac.kernels.llvm.vectors import BYTE_POINTER, INT
from fastjac.kernels.signatures import MISMATCH

_ALIVE = "fastjac.handles.alive"  # what machine code calls the address of the list


class _Alive:
    """The list of the handles that are alive: how many places there are, then a key and an address in each.

    A key is never used again, in no process. A list that became too short stays, for who is reading it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # A handle may be collected while this thread adds one.
        self._lists = [self._list(64)]
        self._at = np.array([self._lists[0].ctypes.data])
        self._free = list(range(64))
        binding.add_symbol(_ALIVE, int(self._at.ctypes.data))

    @staticmethod
    def _list(places: int) -> NDArray[np.int64]:
        made = np.zeros(1 + 2 * places, np.int64)
        made[0] = places
        return made

    def add(self, record: NDArray[np.int64]) -> int:
        """Enter a record, and return its place."""
        with self._lock:
            if not self._free:
                places = int(self._lists[-1][0])
                longer = self._list(2 * places)
                longer[1 : 1 + 2 * places] = self._lists[-1][1:]
                self._free.extend(range(places, 2 * places))
                self._lists.append(longer)
                self._at[0] = longer.ctypes.data
            place = self._free.pop()
            record[c_entries.PLACE], record[c_entries.KEY] = place, 1 + secrets.randbits(62)
            self._lists[-1][1 + 2 * place : 3 + 2 * place] = record[c_entries.KEY], record.ctypes.data
            return place

    def remove(self, place: int) -> None:
        """Take a record out, before its memory is free."""
        with self._lock:
            self._lists[-1][1 + 2 * place : 3 + 2 * place] = 0
            self._free.append(place)


_alive = _Alive()


class _Owner:
    """What a handle keeps: its record, and a context that no thread uses otherwise."""

    def __init__(self, packed: Weights) -> None:
        self._context = new_context(packed)
        self._record = records.make(packed, self._context)
        weakref.finalize(self, _alive.remove, _alive.add(self._record)).atexit = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._record.__array_interface__


def handle(packed: Weights) -> NDArray[np.int64]:
    """Return a new handle, which keeps all that it needs; see `Network.handle`."""
    return np.asarray(_Owner(packed))


@intrinsic
def _is_alive(typing: Any, handle: Any) -> Any:
    """Return whether a record is in the list of those that are alive."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        record = builder.bitcast(context.make_array(handle)(context, builder, args[0]).data, BYTE_POINTER)
        known = builder.module.globals.get(_ALIVE)
        alive = known or ir.GlobalVariable(builder.module, INT.as_pointer(), _ALIVE)
        places = builder.load(alive)
        place = builder.load(c_entries.emit_field(builder, record, c_entries.PLACE))
        result = cgutils.alloca_once_value(builder, cgutils.false_bit)
        with builder.if_then(builder.icmp_unsigned("<", place, builder.load(places))):
            at = builder.add(builder.mul(place, INT(2)), INT(1))
            key, where = (builder.load(builder.gep(places, [builder.add(at, INT(i))])) for i in range(2))
            given = builder.load(c_entries.emit_field(builder, record, c_entries.KEY))
            same = builder.icmp_signed("==", key, given)
            here = builder.icmp_signed("==", where, builder.ptrtoint(record, INT))
            builder.store(builder.and_(same, here), result)
        return builder.load(result)

    return types.boolean(handle), codegen


@intrinsic
def _call(typing: Any, handle: Any, x: Any, y: Any, jac: Any) -> Any:
    """Return the status of the function of a record, called with three arrays."""
    for name, array, ndim in zip(("x", "y", "jac"), (x, y, jac), (1, 1, 2), strict=True):
        fits = isinstance(array, types.Array) and array.ndim == ndim and array.layout == "C"
        if not fits or array.dtype not in (types.float32, types.float64) or array.dtype != x.dtype:
            raise errors.TypingError(
                f"value_and_jacobian: {name} is {array}, expected a C-contiguous float32 or float64 array "
                f"of {ndim} dimension{'s' * (ndim > 1)}, the same dtype as x"
            )
        if name != "x" and not array.mutable:
            raise errors.TypingError(f"value_and_jacobian: {name} is read-only")

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: list[ir.Value]) -> ir.Value:
        data = [
            builder.bitcast(cgutils.create_struct_proxy(kind)(context, builder, value).data, BYTE_POINTER)
            for kind, value in zip(signature.args, args, strict=True)
        ]
        function = builder.load(c_entries.emit_field(builder, data[0], c_entries.FUNCTION))
        function = builder.inttoptr(function, c_entries.FUNCTION_TYPE.as_pointer())
        return builder.sext(builder.call(function, data), INT)

    return types.intp(handle, x, y, jac), codegen


@njit(error_model="numpy")
def value_and_jacobian(handle: NDArray[np.int64], x: NDArray[Any], y: NDArray[Any], jac: NDArray[Any]) -> int:
    """Write a network's output and Jacobian from compiled code; callable from Python also.

    Parameters
    ----------
    handle : ndarray of int64
        What `Network.handle` returned. For one thread at a time.
    x : ndarray, (N,)
        Inputs. All arrays are C-contiguous and of the network's dtype.
    y : ndarray, (M,)
        Written: the output.
    jac : ndarray, (M, N)
        Written: ``jac[m, n] = d y[m] / d x[n]``. The arrays do not overlap.

    Returns
    -------
    status : int
        `OK`, or, with nothing written, `MISMATCH` for arrays or a handle that do not fit and `BUSY` where
        another thread is using the handle.

    Raises
    ------
    TypingError
        When the calling function is compiled, for arguments that are not such arrays.
    """
    if (
        handle.size != c_entries.FIELDS
        or handle[c_entries.LAYOUT_AT] != c_entries.LAYOUT
        or not _is_alive(handle)
    ):
        return MISMATCH
    n, m = handle[c_entries.INPUTS], handle[c_entries.OUTPUTS]
    if handle[c_entries.ITEMSIZE] != x.itemsize or x.size != n or y.size != m:
        return MISMATCH
    if jac.shape[0] != m or jac.shape[1] != n:
        return MISMATCH
    return _call(handle, x, y, jac)


value_and_jacobian._cache = Overloads("embedding", __name__)


def ready(dtype: np.dtype[Any]) -> None:
    """Compile or load `value_and_jacobian` for calls from Python."""
    element = from_dtype(dtype)
    y, jac = types.Array(element, 1, "C"), types.Array(element, 2, "C")
    for readonly in (False, True):
        x = types.Array(element, 1, "C", readonly=readonly)
        value_and_jacobian.compile((types.Array(types.int64, 1, "C"), x, y, jac))
