"""Calls from compiled code and through the C function, and what a process does before its first one."""

import ctypes

import numpy as np
from numba import njit

from fastjac.embedding import value_and_jacobian

from .common import DTYPES, SHAPES, check, random_network, results

CALLS = 100


@njit
def _repeat(handle, times, x, y, jac):
    status = 0
    for _ in range(times):
        status |= value_and_jacobian(handle, x, y, jac)
    return status


class Compiled:
    """100 calls each."""

    params = [SHAPES, DTYPES]
    param_names = ["shape", "dtype"]

    def setup(self, shape, dtype):
        self.net, self.x = random_network(shape, dtype)
        self.out = results(self.net)
        self.handle = self.net.handle()
        assert _repeat(self.handle, 1, self.x, *self.out) == 0
        check(self.out, self.net.layers, self.x)
        function = self.net.c_function()
        kind = {"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype]
        arrays = [array.ctypes.data_as(ctypes.POINTER(kind)) for array in (self.x, *self.out)]
        self.call, self.arguments = function.ctypes, (function.context, *arrays)
        self.function = function

    def time_from_compiled_code(self, shape, dtype):
        _repeat(self.handle, CALLS, self.x, *self.out)

    def time_through_ctypes(self, shape, dtype):
        for _ in range(CALLS):
            self.call(*self.arguments)

    def time_through_python(self, shape, dtype):
        for _ in range(CALLS):
            self.net.value_and_jacobian(self.x, out=self.out)


class Handles:
    def setup(self):
        self.net, x = random_network("500-100-10", "float64")
        self.net.value_and_jacobian(x)

    def time_handle(self):
        self.net.handle()

    def time_c_function(self):
        self.net.c_function().close()


class ColdStart:
    def setup_cache(self):
        """Leave nothing to compile."""
        net, x = random_network("8-32-4", "float64")
        net.value_and_jacobian(np.asarray(x))

    def timeraw_import_numba(self):
        return "import numba"

    def timeraw_import_fastjac(self):
        return "import fastjac"
