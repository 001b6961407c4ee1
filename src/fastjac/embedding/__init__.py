"""A network for callers without Python: handles for njit functions, and C functions."""

from fastjac.embedding.c_function import CFunction
from fastjac.embedding.handles import handle, value_and_jacobian
from fastjac.kernels.c_entries import BUSY, CLOSED
from fastjac.kernels.signatures import MISMATCH, OK

__all__ = ["BUSY", "CLOSED", "MISMATCH", "OK", "CFunction", "handle", "value_and_jacobian"]
