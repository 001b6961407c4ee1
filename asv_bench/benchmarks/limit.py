"""How near a call comes to the least time that the machine needs: in percent, more is better."""

import timeit

import numpy as np

try:
    from fastjac.bench import limits
except ImportError:  # where 0.1.0 has it
    from fastjac import limits

from .common import DTYPES, NETWORKS, OneNetwork, random_layers

CALLS, ROUNDS = 100, 200


def active_units(x, pairs, activation):
    """Return how many units of each hidden layer have a slope that is not zero."""
    found = []
    for w, b in pairs[:-1]:
        z = x @ w + b
        found.append(np.count_nonzero(z > 0) if activation == "relu" else z.size)
        x = np.maximum(z, 0)
    return found


class ShareOfLimit(OneNetwork):
    params = [["small", "article", "mnist", "policy-elu"], DTYPES]
    unit = "% of the limit"

    def track_value_and_jacobian(self, network, dtype):
        net, x, out = self.net, self.x, self.out
        sizes, activation, head = NETWORKS[network]
        active = active_units(*random_layers(sizes, dtype), activation)
        rounds = timeit.repeat(lambda: net.value_and_jacobian(x, out=out), repeat=ROUNDS, number=CALLS)
        return 100 * limits.limit_seconds(sizes, active, dtype, limits.measure(), head) * CALLS / min(rounds)
