"""Calls on one input, the Python call included: 100 of them each time."""

import threading

import numpy as np

import fastjac

from .common import CALLS, DTYPES, NETWORKS, SOME, OneNetwork, check, close, random_layers, results


class Network(OneNetwork):
    def time_value_and_jacobian(self, network, dtype):
        net, x, out = self.net, self.x, self.out
        for _ in range(CALLS):
            net.value_and_jacobian(x, out=out)


class Methods(OneNetwork):
    """What else a network computes, into new arrays."""

    params = [SOME, DTYPES, ["value", "value_and_jacobian", "vjp", "jvp"]]
    param_names = ["network", "dtype", "method"]

    def setup(self, network, dtype, method):
        super().setup(network, dtype)
        net, x, (y, jac) = self.net, self.x, self.out
        v, u = (np.random.default_rng(1).standard_normal(size).astype(dtype) for size in jac.shape)
        self.call, self.arguments, expected = {
            "value": (net, (x,), y),
            "value_and_jacobian": (net.value_and_jacobian, (x,), jac),
            "vjp": (net.vjp, (x, v), v @ jac),
            "jvp": (net.jvp, (x, u), jac @ u),
        }[method]
        got = self.call(*self.arguments)
        close(got if method == "value" else got[1], expected)

    def time_new_arrays(self, network, dtype, method):
        call, arguments = self.call, self.arguments
        for _ in range(CALLS):
            call(*arguments)


class RawArrays(OneNetwork):
    params = [[name for name, (sizes, _, _) in NETWORKS.items() if len(sizes) == 3], DTYPES]

    def setup(self, network, dtype):
        super().setup(network, dtype)
        _, pairs = random_layers(NETWORKS[network][0], dtype)
        self.weights = [array for pair in pairs for array in pair]
        check(fastjac.value_and_jacobian(self.x, *self.weights, out=self.out), self.net, self.x)

    def time_value_and_jacobian(self, network, dtype):
        x, (w1, b1, w2, b2), out = self.x, self.weights, self.out
        for _ in range(CALLS):
            fastjac.value_and_jacobian(x, w1, b1, w2, b2, out=out)


class Threads(OneNetwork):
    """400 calls of one network, divided over threads."""

    params = [[1, 2], DTYPES]
    param_names = ["threads", "dtype"]

    def setup(self, threads, dtype):
        super().setup("article", dtype)

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


class Construction:
    params = [SOME, DTYPES]
    param_names = ["network", "dtype"]

    def setup(self, network, dtype):
        sizes, *self.names = NETWORKS[network]
        _, self.pairs = random_layers(sizes, dtype)
        fastjac.Network(self.pairs, *self.names)

    def time_network(self, network, dtype):
        for _ in range(10):
            fastjac.Network(self.pairs, *self.names)


class Control:
    """Tells a slow machine from slow code: nothing of fastjac runs here."""

    def setup(self):
        rng = np.random.default_rng(0)
        self.a, self.b = rng.standard_normal((10, 100)), rng.standard_normal((100, 500))
        self.c = self.a @ self.b

    def time_numpy_matmul(self):
        for _ in range(CALLS):
            np.matmul(self.a, self.b, out=self.c)
