"""Calls from compiled code and through the C function: 100 of them each time."""

import ctypes

from numba import njit

from fastjac.embedding import OK, value_and_jacobian

from .common import CALLS, DTYPES, SOME, OneNetwork, check, random_network, results


@njit(cache=True)  # asv measures each network in a process of its own.
def repeated(handle, times, x, y, jac):
    status = 0
    for _ in range(times):
        status |= value_and_jacobian(handle, x, y, jac)
    return status


class Compiled(OneNetwork):
    """The routine alone: what `Network` and Python add is left out."""

    def setup(self, network, dtype):
        super().setup(network, dtype)
        self.handle, self.out = self.net.handle(), results(self.net)
        assert repeated(self.handle, 1, self.x, *self.out) == OK
        check(self.out, self.net, self.x)

    def time_value_and_jacobian(self, network, dtype):
        repeated(self.handle, CALLS, self.x, *self.out)


class CFunction(OneNetwork):
    params = [SOME, DTYPES]

    def setup(self, network, dtype):
        super().setup(network, dtype)
        self.function, self.out = self.net.c_function(), results(self.net)
        kind = {"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype]
        arrays = [array.ctypes.data_as(ctypes.POINTER(kind)) for array in (self.x, *self.out)]
        self.arguments = (self.function.context, *arrays)
        assert self.function.ctypes(*self.arguments) == OK
        check(self.out, self.net, self.x)

    def time_through_ctypes(self, network, dtype):
        call, arguments = self.function.ctypes, self.arguments
        for _ in range(CALLS):
            call(*arguments)


class Handles:
    def setup(self):
        self.net, _ = random_network("article", "float64")
        self.net.handle()
        self.net.c_function().close()

    def time_handle(self):
        for _ in range(CALLS):
            self.net.handle()

    def time_c_function(self):
        for _ in range(CALLS):
            self.net.c_function().close()
