"""The largest resident memory of a process that uses one network."""

import numpy as np

from .common import CALLS, DTYPES, check, random_network, results


class _Compiled:
    """Compiles in a process of its own: the memory of the compiler is not what is measured."""

    def setup_cache(self):
        for dtype in DTYPES:
            net, x = random_network("small", dtype)
            check(net.value_and_jacobian(x, out=results(net)), net, x)
            check([array[0] for array in net.value_and_jacobian(x[None])], net, x)
            net.sensitivity(x)

    setup_cache.timeout = 600


class Memory(_Compiled):
    params = [["tiny", "article", "wide", "acas-xu", "policy-elu"], DTYPES]
    param_names = ["network", "dtype"]

    def peakmem_value_and_jacobian(self, network, dtype):
        net, x = random_network(network, dtype)
        out = results(net)
        for _ in range(CALLS):
            net.value_and_jacobian(x, out=out)


class Batches(_Compiled):
    """Many inputs: all Jacobians (5 kB each), some at a time, and a summary of them."""

    params = [[1024, 65_536]]
    param_names = ["samples"]

    def setup(self, samples):
        self.net, _ = random_network("small", "float64")
        self.x = np.random.default_rng(1).standard_normal((samples, 64))

    def peakmem_value_and_jacobian(self, samples):
        self.net.value_and_jacobian(self.x)

    def peakmem_iter_value_and_jacobian(self, samples):
        for _ in self.net.iter_value_and_jacobian(self.x):
            pass

    def peakmem_sensitivity(self, samples):
        self.net.sensitivity(self.x)
