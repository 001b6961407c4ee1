"""A compiled routine's own view of a network: the context that a test gives it, and may look into."""

import ctypes

import numpy as np

from fastjac.kernels import routines, signatures
from fastjac.kernels.context import Context


def packed(net):
    """Return a network's weights as the kernels get them."""
    return net.packed


class Watched:
    """A network with one context, whose record and memory show which way its last call took."""

    def __init__(self, net):
        self.net = net
        self.packed = packed(net)
        self.context = Context(self.packed)
        self.record = self.context.record

    def value_and_jacobian(self, x):
        """Call the compiled routine for a sample (N,) or a batch (B, N)."""
        x = np.ascontiguousarray(x, self.net.dtype)
        y = np.empty((*x.shape[:-1], self.net.n_outputs), self.net.dtype)
        jac = np.empty((y.size, self.net.n_inputs), self.net.dtype)
        routine = routines.routine(self.net.dtype)
        mode, samples = signatures.VALUE_AND_JACOBIAN, x.size // self.net.n_inputs
        x_at, y_at, jac_at = (array.ctypes.data for array in (x, y, jac))
        assert routine(self.context.address, mode, samples, x_at, 0, y_at, jac_at) == signatures.OK
        return y, jac.reshape(*y.shape, self.net.n_inputs)

    def memory(self, field, *shape, dtype=None):
        """Return what lies at the address in a field of the record, as an array that shares it."""
        dtype = np.dtype(dtype or self.net.dtype)
        block = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(int(self.record[field]))
        return np.frombuffer(block, dtype).reshape(shape)
