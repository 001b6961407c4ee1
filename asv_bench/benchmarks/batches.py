"""Many inputs in one call: over the size of the batch, and on several threads."""

import numpy as np

from .common import DTYPES, check, random_network, results


def random_batch(network, dtype, samples):
    """Return a network, ``x`` (samples, N), and buffers that hold the right results."""
    net, _ = random_network(network, dtype)
    x = np.random.default_rng(1).standard_normal((samples, net.n_inputs), net.dtype)
    y, jac = out = net.value_and_jacobian(x, out=results(net, samples))
    for i in (0, -1):
        check((y[i], jac[i]), net, x[i])
    return net, x, out


class Throughput:
    """6400 inputs on one core, in calls with `out=` on some samples each."""

    params = [[1, 50, 256, 3200], ["tiny", "article", "small", "horizon"], DTYPES]
    param_names = ["samples", "network", "dtype"]

    def setup(self, samples, network, dtype):
        self.net, self.x, self.out = random_batch(network, dtype, samples)

    def time_6400_samples(self, samples, network, dtype):
        net, x, out = self.net, self.x, self.out
        for _ in range(6400 // samples):
            net.value_and_jacobian(x, out=out)


class Cotangents:
    """One call of `vjp` with `out=` on 4096 inputs."""

    params = [["tiny", "article", "horizon"], DTYPES]
    param_names = ["network", "dtype"]

    def setup(self, network, dtype):
        self.net, self.x, (y, jac) = random_batch(network, dtype, 4096)
        self.v = np.random.default_rng(2).standard_normal(y.shape, dtype)
        self.out = self.net.vjp(self.x, self.v)
        expected = np.einsum("bm,bmn->bn", self.v, jac)
        np.testing.assert_allclose(self.out[1], expected, rtol=0, atol=1e-4 * np.abs(expected).max())

    def time_vjp(self, network, dtype):
        self.net.vjp(self.x, self.v, out=self.out)


class Threads:
    """One call with `out=` on 4096 inputs, on several cores."""

    params = [[1, 2], DTYPES]
    param_names = ["threads", "dtype"]

    def setup(self, threads, dtype):
        self.net, self.x, self.out = random_batch("article", dtype, 4096)
        self.time_value_and_jacobian(threads, dtype)
        check([array[-1] for array in self.out], self.net, self.x[-1])

    def time_value_and_jacobian(self, threads, dtype):
        self.net.value_and_jacobian(self.x, out=self.out, threads=threads)


class Sensitivity:
    """Summaries of 4096 Jacobians."""

    params = ["mean_abs", "class_mean", "frobenius", "spectral"]
    param_names = ["reduce"]

    def setup(self, reduce):
        self.net, self.x, (_, jac) = random_batch("small", "float64", 4096)
        got = self.net.sensitivity(self.x, reduce)
        if reduce == "spectral":
            np.testing.assert_allclose(got[:9], np.linalg.norm(jac[:9], 2, axis=(1, 2)))
        if reduce == "mean_abs":
            np.testing.assert_allclose(got, np.abs(jac).mean(axis=0))

    def time_sensitivity(self, reduce):
        self.net.sensitivity(self.x, reduce)
