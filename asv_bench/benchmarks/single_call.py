"""One call on one input, the Python call included."""

import numpy as np

import fastjac

from .common import DTYPES, SHAPES, check, random_layers, random_network, results


class Network:
    params = [SHAPES, DTYPES, ["given", "new"]]
    param_names = ["shape", "dtype", "out"]

    def setup(self, shape, dtype, out):
        self.net, self.x = random_network(shape, dtype)
        self.out = results(self.net) if out == "given" else None
        got = self.net.value_and_jacobian(self.x, out=self.out)
        check(got, self.net.layers, self.x)

    def time_value_and_jacobian(self, shape, dtype, out):
        self.net.value_and_jacobian(self.x, out=self.out)


class Products:
    params = [SHAPES, DTYPES]
    param_names = ["shape", "dtype"]

    def setup(self, shape, dtype):
        self.net, self.x = random_network(shape, dtype)
        rng = np.random.default_rng(1)
        self.cotangent = rng.standard_normal(self.net.n_outputs).astype(dtype)
        self.tangent = rng.standard_normal(self.net.n_inputs).astype(dtype)
        y, jac = self.net.value_and_jacobian(self.x)
        rtol = 1e-3 if dtype == "float32" else 1e-10
        for got, expected in (
            (self.net(self.x), y),
            (self.net.vjp(self.x, self.cotangent)[1], self.cotangent @ jac),
            (self.net.jvp(self.x, self.tangent)[1], jac @ self.tangent),
        ):
            np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max())

    def time_forward(self, shape, dtype):
        self.net(self.x)

    def time_vjp(self, shape, dtype):
        self.net.vjp(self.x, self.cotangent)

    def time_jvp(self, shape, dtype):
        self.net.jvp(self.x, self.tangent)


class RawArrays:
    params = [SHAPES, DTYPES]
    param_names = ["shape", "dtype"]

    def setup(self, shape, dtype):
        self.x, pairs = random_layers(shape, dtype)
        self.weights = [array for pair in pairs for array in pair]
        net = fastjac.Network(pairs)
        self.out = results(net)
        got = fastjac.value_and_jacobian(self.x, *self.weights, out=self.out)
        check(got, net.layers, self.x)

    def time_value_and_jacobian(self, shape, dtype):
        fastjac.value_and_jacobian(self.x, *self.weights, out=self.out)


class Construction:
    params = [SHAPES, DTYPES]
    param_names = ["shape", "dtype"]

    def setup(self, shape, dtype):
        _, self.pairs = random_layers(shape, dtype)
        fastjac.Network(self.pairs)

    def time_network(self, shape, dtype):
        fastjac.Network(self.pairs)


class Control:
    """Tells a slow machine from slow code: nothing of fastjac runs here."""

    def setup(self):
        rng = np.random.default_rng(0)
        self.a, self.b = rng.standard_normal((10, 100)), rng.standard_normal((100, 500))
        self.c = self.a @ self.b

    def time_numpy_matmul(self):
        np.matmul(self.a, self.b, out=self.c)
