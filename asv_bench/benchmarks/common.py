"""The networks that are measured, and the check that their results are right."""

from itertools import pairwise

import numpy as np

import fastjac
from fastjac import reference

# A name, then the sizes of the inputs and of each layer's outputs, the activation and the head.
NETWORKS = {
    "tiny": ((8, 32, 4), "relu", "softmax"),
    "small": ((64, 64, 10), "relu", "softmax"),
    "article": ((500, 100, 10), "relu", "softmax"),
    "mnist": ((784, 256, 10), "relu", "softmax"),
    "wide": ((2048, 1024, 100), "relu", "softmax"),
    "acas-xu": ((5, *[50] * 6, 5), "relu", "identity"),
    "policy-elu": ((480, 512, 256, 128, 29), "elu", "identity"),
    "policy-elu-small": ((45, 512, 256, 128, 12), "elu", "identity"),
    "policy-silu": ((48, 512, 256, 128, 24), "silu", "identity"),
    "policy-tanh": ((27, 64, 64, 8), "tanh", "identity"),
    "policy-tanh-wide": ((675, 64, 64, 17), "tanh", "identity"),
    "policy-relu": ((17, 256, 256, 6), "relu", "tanh"),
    "digits": ((784, 100, 100, 100, 10), "relu", "softmax"),
    "deep": ((32, *[64] * 16, 8), "tanh", "identity"),
    "affine": ((64, 512, 512, 10), ("identity", "relu"), "softmax"),
    "tabular": ((8, 64, 32, 1), "relu", "identity"),
    "dynamics": ((17, 64, 64, 12), "tanh", "identity"),
    "horizon": ((16, 128, 128, 12), "tanh", "identity"),
}
SOME = ["tiny", "article", "acas-xu", "policy-elu", "dynamics"]  # Where the others tell no more.
DTYPES = ["float64", "float32"]

fastjac.warmup()  # asv imports this once, and forks a process for each measurement.

CALLS = 100  # asv runs `setup` before each call that it times, so that one call does much.
TOLERANCES = {"float64": 1e-12, "float32": 1e-4}  # of the largest entry


def random_layers(sizes, dtype):
    """Return ``x`` and pairs ``(w, b)`` of normal weights, with about half of the hidden units active."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(sizes[0]).astype(dtype)
    pairs = [
        (
            (rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in)).astype(dtype),
            (rng.standard_normal(fan_out) / 10).astype(dtype),
        )
        for fan_in, fan_out in pairwise(sizes)
    ]
    return x, pairs


def random_network(name, dtype):
    """Return a network with `random_layers`' weights, and ``x``."""
    sizes, activation, head = NETWORKS[name]
    x, pairs = random_layers(sizes, dtype)
    return fastjac.Network(pairs, activation, head), x


def results(net, *samples):
    """Return buffers for ``y`` and ``jac``, touched so that their pages are there."""
    y = np.full((*samples, net.n_outputs), np.nan, net.dtype)
    jac = np.full((*samples, net.n_outputs, net.n_inputs), np.nan, net.dtype)
    return y, jac


def check(got, net, x):
    """Raise AssertionError unless ``got`` is the value and Jacobian at ``x``."""
    for array, expected in zip(got, reference.value_and_jacobian(x.astype(float), net.layers), strict=True):
        close(array, expected)


def close(got, expected):
    """Raise AssertionError unless ``got`` is ``expected`` but for rounding in its dtype."""
    atol = TOLERANCES[str(got.dtype)] * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


class OneNetwork:
    """A network, an input, and buffers that hold the right results: the base of benchmarks."""

    params = [list(NETWORKS), DTYPES]
    param_names = ["network", "dtype"]
    repeat = (5, 50, 2.0)  # samples, at least and at most, and seconds

    def setup(self, network, dtype):
        self.net, self.x = random_network(network, dtype)
        self.out = results(self.net)
        check(self.net.value_and_jacobian(self.x, out=self.out), self.net, self.x)
