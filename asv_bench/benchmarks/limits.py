"""Shares of what this machine allows: the least time of a call over the time that it takes."""

import timeit

import numpy as np

try:
    from fastjac.bench import limits
except ImportError:  # 0.1.0 has it here
    from fastjac import limits

from .common import DTYPES, NETWORKS, check, random_layers, random_network, results

ROUNDS, SECONDS = 300, 0.001  # rounds so short that other work interrupts few of them


def sizes_and_active(name, dtype):
    """Return the sizes, affine maps in a row merged, and how many units of each hidden layer have a slope."""
    sizes, activation, _ = NETWORKS[name]
    x, pairs = random_layers(sizes, dtype)
    hidden = pairs[:-1]
    activations = [activation] * len(hidden) if isinstance(activation, str) else activation
    merged, active = [sizes[0]], []
    for (w, b), each in zip(hidden, activations, strict=True):
        x = x @ w + b
        if each != "identity":
            merged.append(x.size)
            active.append(np.count_nonzero(x > 0) if each == "relu" else x.size)
        x = np.maximum(x, 0) if each == "relu" else x
    return [*merged, sizes[-1]], active


class _Limits:
    """Measures the machine once, and compiles."""

    def setup_cache(self):
        for dtype in DTYPES:
            net, x = random_network("tiny", dtype)
            net.value_and_jacobian(x)
        return limits.measure()

    setup_cache.timeout = 600

    def share(self, machine, network, dtype, samples=None):
        """Return the share that calls with `out=` reach, after a look at their results."""
        net, x = random_network(network, dtype)
        check(net.value_and_jacobian(x), net, x)
        if samples is not None:
            x = np.tile(x, (samples, 1))
        out = results(net, *x.shape[:-1])
        timer = timeit.Timer(lambda: net.value_and_jacobian(x, out=out))
        number = max(1, int(SECONDS / timer.timeit(2) * 2))
        sizes, active = sizes_and_active(network, dtype)
        least = limits.limit_seconds(sizes, active, dtype, machine, NETWORKS[network][-1], samples or 1)
        return least * number / min(timer.repeat(ROUNDS, number))

    def share_of(self, machine, given):
        """Return the share that calls of a problem with `out=` reach, after a look at their results."""
        from fastjac.bench import compare, measure

        found, _ = measure.builders(["fastjac"])
        calls, _ = measure.prepare(given, {"fastjac": found["fastjac"]})
        rows = measure.measure(calls, ROUNDS, SECONDS * ROUNDS)
        return compare.figures(given, rows, machine)["peers"][0]["limit_share"]


class OneInput(_Limits):
    params = [list(NETWORKS), DTYPES]
    param_names = ["network", "dtype"]

    def track_share_of_limit(self, machine, network, dtype):
        return self.share(machine, network, dtype)


class Batches(_Limits):
    params = [[256], ["tiny", "small", "article", "horizon", "dynamics"], DTYPES]
    param_names = ["samples", "network", "dtype"]

    def track_share_of_limit(self, machine, samples, network, dtype):
        return self.share(machine, network, dtype, samples)
