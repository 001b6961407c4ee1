"""Networks that are no chain of layers: 100 calls each time, and shares of what the machine allows."""

import numpy as np

import fastjac

from .common import CALLS, DTYPES, close, results
from .limits import _Limits


def _weights(rng, n, m):
    return rng.standard_normal((n, m)) / np.sqrt(n), rng.standard_normal(m) / 10


def _step_of_dynamics(graph, rng):
    x = graph.input(16)
    h = graph.affine(x, *_weights(rng, 16, 64), "tanh")
    h = graph.affine(h, *_weights(rng, 64, 64), "tanh")
    return x[:12] + 0.05 * graph.affine(h, *_weights(rng, 64, 12))


def _residual(graph, rng):
    h = graph.affine(graph.input(9), *_weights(rng, 9, 50), "tanh")
    for _ in range(3):
        h = h + graph.affine(h, *_weights(rng, 50, 50), "tanh")
    return graph.affine(h, *_weights(rng, 50, 4))


def _skip(graph, rng):
    x = graph.input(3)
    h = graph.affine(x, *_weights(rng, 3, 64), "softplus")
    h = graph.affine(h, *_weights(rng, 64, 64), "softplus")
    h = graph.affine(graph.concatenate([h, x]), *_weights(rng, 67, 64), "softplus")
    return graph.affine(h, *_weights(rng, 64, 1))


def _normalised(graph, rng):
    h = graph.input(48)
    for n, m in ((48, 256), (256, 128)):
        h = graph.layer_norm(graph.affine(h, *_weights(rng, n, m)), *rng.standard_normal((2, m)))
        h = graph.apply(h, "elu")
    return graph.affine(graph.affine(h, *_weights(rng, 128, 64), "elu"), *_weights(rng, 64, 12))


def _gated(graph, rng):
    z = graph.affine(graph.input(13), *_weights(rng, 13, 60))
    return graph.affine(z[:30] * graph.apply(z[30:], "sigmoid"), *_weights(rng, 30, 5), "softmax")


GRAPHS = {
    "dynamics": _step_of_dynamics,
    "residual": _residual,
    "skip": _skip,
    "normalised": _normalised,
    "gated": _gated,
}


def _network(name, dtype):
    from fastjac import graph  # Not in 0.1.0.

    return fastjac.Network(GRAPHS[name](graph, np.random.default_rng(0)), dtype=dtype)


class Graphs:
    params = [list(GRAPHS), DTYPES]
    param_names = ["network", "dtype"]

    def setup(self, network, dtype):
        self.net = _network(network, dtype)
        self.x = np.random.default_rng(1).standard_normal(self.net.n_inputs).astype(dtype)
        self.out = results(self.net)
        self.net.value_and_jacobian(self.x, out=self.out)
        from fastjac import reference

        expected = reference.graph_value_and_jacobian(self.x.astype(float), self.net.graph)
        for got, array in zip(self.out, expected, strict=True):
            close(got, array)

    def time_value_and_jacobian(self, network, dtype):
        net, x, out = self.net, self.x, self.out
        for _ in range(CALLS):
            net.value_and_jacobian(x, out=out)


class ShareOfLimit(_Limits):
    params = [list(GRAPHS), DTYPES]
    param_names = ["network", "dtype"]

    def track_share_of_limit(self, machine, network, dtype):
        from fastjac.bench.problem import network_problem

        return self.share_of(machine, network_problem(_network(network, dtype)))
