"""The largest resident memory of a process that uses one network."""

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
