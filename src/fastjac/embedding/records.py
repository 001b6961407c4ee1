"""The records that callers without Python hand over for a network, and the C functions that take them."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastjac.kernels import machine_code
from fastjac.kernels.c_entries import (
    CONTEXT,
    FIELDS,
    FREE,
    FUNCTION,
    INPUTS,
    ITEMSIZE,
    LAYOUT,
    LAYOUT_AT,
    OUTPUTS,
    ROUTINE,
    STATE,
)
from fastjac.kernels.context import Context
from fastjac.kernels.contexts import Weights


class Functions:
    """The C functions of one dtype, which stay for as long as the process.

    Attributes
    ----------
    call : int
        Address of ``int (record, x, y, jac)``.
    close : callable
        ``close(record)`` refuses all calls from then on, or returns true where one is running.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.call = machine_code.address("record", "call", dtype)
        close = machine_code.address("record", "close", dtype)
        self.close: Callable[[int], int] = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(close)


@functools.cache
def functions(dtype: np.dtype[Any]) -> Functions:
    """Return the C functions of one dtype."""
    return Functions(dtype)


def make(packed: Weights, context: Context) -> NDArray[np.int64]:
    """Return the record (FIELDS,) of a network, whose calls work in ``context``."""
    record = np.zeros(FIELDS, np.int64)
    record[LAYOUT_AT] = LAYOUT
    record[FUNCTION] = functions(packed.dtype).call
    record[ITEMSIZE] = packed.dtype.itemsize
    record[INPUTS], record[OUTPUTS] = context.sizes
    record[STATE] = FREE
    record[CONTEXT] = context.address
    record[ROUTINE] = machine_code.routine(packed.is_graph, packed.dtype)
    return record
