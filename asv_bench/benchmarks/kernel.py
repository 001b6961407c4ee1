"""The compiled routine without Python, over a grid of sizes, and on several threads."""

import threading

from fastjac.kernels import fused, peak
from fastjac.kernels.context import Context

from .common import DTYPES, SHAPES, check, random_network, results


class KernelAlone:
    """Many calls from compiled code: what `Network` adds is left out."""

    params = [SHAPES, DTYPES]
    param_names = ["shape", "dtype"]

    def setup(self, shape, dtype):
        self.net, self.x = random_network(shape, dtype)
        self.y, self.jac = results(self.net)
        self.context = Context(self.net._packed)
        self.loop = peak.repeated(fused.routine(self.net.dtype))
        self.time_100_calls(shape, dtype)
        check((self.y, self.jac), self.net.layers, self.x)

    def time_100_calls(self, shape, dtype):
        self.loop(100, self.context.address, self.x, self.y, self.jac)


class Grid:
    """Single calls over the sizes that people use, from a controller's to a picture classifier's."""

    params = [[4, 64, 784], [8, 128, 1024], [10, 100], DTYPES]
    param_names = ["inputs", "hidden", "outputs", "dtype"]

    def setup(self, inputs, hidden, outputs, dtype):
        self.net, self.x = random_network(f"{inputs}-{hidden}-{outputs}", dtype)
        self.out = results(self.net)
        check(self.net.value_and_jacobian(self.x, out=self.out), self.net.layers, self.x)

    def time_value_and_jacobian(self, inputs, hidden, outputs, dtype):
        self.net.value_and_jacobian(self.x, out=self.out)


class Threads:
    """400 calls of one network, divided over threads."""

    params = [[1, 2], DTYPES]
    param_names = ["threads", "dtype"]

    def setup(self, threads, dtype):
        self.net, self.x = random_network("500-100-10", dtype)
        check(self.net.value_and_jacobian(self.x), self.net.layers, self.x)

    def time_400_calls(self, threads, dtype):
        def work():
            out = results(self.net)
            for _ in range(400 // threads):
                self.net.value_and_jacobian(self.x, out=out)

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
