"""Many inputs in one call: over the size of the batch, and on several threads."""

import numpy as np

from .common import DTYPES, check, random_network

SHAPES = ["500-100-10", "64-64-10"]
BATCHES = [1, 8, 64, 512, 4096, 65_536]
RESULT_BYTES = 1 << 29  # Larger ones are not made.


def random_batch(shape, dtype, samples):
    """Return a network, ``x`` (samples, N), and buffers for ``y`` and ``jac``, touched."""
    net, _ = random_network(shape, dtype)
    if samples * net.n_outputs * net.n_inputs * net.dtype.itemsize > RESULT_BYTES:
        raise NotImplementedError  # asv's word for a combination to leave out
    x = np.random.default_rng(1).standard_normal((samples, net.n_inputs), net.dtype)
    y = np.full((samples, net.n_outputs), np.nan, net.dtype)
    jac = np.full((samples, net.n_outputs, net.n_inputs), np.nan, net.dtype)
    return net, x, (y, jac)


def check_ends(net, x, out):
    """Raise AssertionError unless the first and the last sample's results are right."""
    for i in (0, -1):
        check((out[0][i], out[1][i]), net.layers, x[i])


class Throughput:
    """One call with `out=` on one core."""

    params = [BATCHES, SHAPES, DTYPES]
    param_names = ["samples", "shape", "dtype"]

    def setup(self, samples, shape, dtype):
        self.net, self.x, self.out = random_batch(shape, dtype, samples)
        check_ends(self.net, self.x, self.net.value_and_jacobian(self.x, out=self.out))

    def time_value_and_jacobian(self, samples, shape, dtype):
        self.net.value_and_jacobian(self.x, out=self.out)


class Threads:
    """One call with `out=` on 4096 inputs, on several cores."""

    params = [[1, 2], DTYPES]
    param_names = ["threads", "dtype"]

    def setup(self, threads, dtype):
        self.net, self.x, self.out = random_batch("500-100-10", dtype, 4096)
        self.time_value_and_jacobian(threads, dtype)
        check_ends(self.net, self.x, self.out)

    def time_value_and_jacobian(self, threads, dtype):
        self.net.value_and_jacobian(self.x, out=self.out, threads=threads)


class Sensitivity:
    """Summaries of 4096 Jacobians."""

    params = ["mean_abs", "class_mean", "frobenius", "spectral"]
    param_names = ["reduce"]

    def setup(self, reduce):
        self.net, self.x, out = random_batch("64-64-10", "float64", 4096)
        _, jac = self.net.value_and_jacobian(self.x, out=out)
        got = self.net.sensitivity(self.x, reduce)
        if reduce == "spectral":
            np.testing.assert_allclose(got[:9], np.linalg.norm(jac[:9], 2, axis=(1, 2)))
        if reduce == "mean_abs":
            np.testing.assert_allclose(got, np.abs(jac).mean(axis=0))

    def time_sensitivity(self, reduce):
        self.net.sensitivity(self.x, reduce)
