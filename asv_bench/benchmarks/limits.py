"""Shares of what this machine allows: the least time of a call over the time that it takes."""

from .common import DTYPES, NETWORKS, random_network

ROUNDS, SECONDS = 25, 0.03


class _Limits:
    """Measures the machine once, and compiles."""

    def setup_cache(self):
        from fastjac.bench import limits

        for dtype in DTYPES:
            net, x = random_network("tiny", dtype)
            net.value_and_jacobian(x)
        return limits.measure()

    setup_cache.timeout = 600

    def share(self, machine, network, dtype, samples=None):
        """Return the share that calls of a network with `out=` reach."""
        from fastjac.bench import problem

        net, _ = random_network(network, dtype)
        return self.share_of(machine, problem.network_problem(net, batch=samples))

    def share_of(self, machine, given):
        """Return the share that calls with `out=` reach, after a look at their results."""
        from fastjac.bench import compare, measure

        found, _ = measure.builders(["fastjac"])
        calls, _ = measure.prepare(given, {"fastjac": found["fastjac"]})
        rows = measure.measure(calls, ROUNDS, SECONDS)
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
