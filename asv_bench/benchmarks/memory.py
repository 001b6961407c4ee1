"""The largest resident memory of a process that uses one network."""

import numpy as np

from .common import DTYPES, SHAPES, check, random_network, results


class Memory:
    params = [SHAPES, DTYPES]
    param_names = ["shape", "dtype"]

    def setup_cache(self):
        """Compile in a process of its own: the compiler's memory is not what is measured."""
        for dtype in DTYPES:
            net, x = random_network(SHAPES[0], dtype)
            check(net.value_and_jacobian(x, out=results(net)), net.layers, x)

    setup_cache.timeout = 600

    def peakmem_value_and_jacobian(self, shape, dtype):
        net, x = random_network(shape, dtype)
        out = results(net)
        for _ in range(100):
            net.value_and_jacobian(x, out=out)


class Batches:
    """Many inputs: all Jacobians (5 kB each), some at a time, and a summary of them."""

    params = [[1024, 65_536]]
    param_names = ["samples"]

    def setup_cache(self):
        """Compile in a process of its own."""
        net, x = random_network("64-64-10", "float64")
        check([array[0] for array in net.value_and_jacobian(x[None])], net.layers, x)
        net.sensitivity(x)

    setup_cache.timeout = 600

    def setup(self, samples):
        self.net, _ = random_network("64-64-10", "float64")
        self.x = np.random.default_rng(1).standard_normal((samples, 64))

    def peakmem_value_and_jacobian(self, samples):
        self.net.value_and_jacobian(self.x)

    def peakmem_iter_value_and_jacobian(self, samples):
        for _ in self.net.iter_value_and_jacobian(self.x):
            pass

    def peakmem_sensitivity(self, samples):
        self.net.sensitivity(self.x)
