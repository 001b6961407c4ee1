"""Random networks with every array, the network's own included, between inaccessible pages.

A touch outside an array, or a write to an input, ends the process.
"""

import numpy as np

from attacks.cases import attack, note
from attacks.draws import compile_all, draw_case
from support.memory_scripts import assert_at_guard_pages, calls, place_at_guard_pages
from support.oracles import assert_right, near_corner


def check(seed, number, found):
    rng = np.random.default_rng([seed, number])
    at = str(rng.choice(["start", "end"]))
    place_at_guard_pages(at)
    case = draw_case(rng)
    lead = tuple(int(size) for size in rng.choice([1, 2, 16, 19, 40], rng.integers(0, 2)))
    note(f"{case}, arrays at the {at} of their pages, batch {lead}")
    net = case.network()
    n, m = net.n_inputs, net.n_outputs
    x, v, u = (rng.standard_normal((*lead, size)).astype(net.dtype) for size in (n, m, n))
    y, jac = calls(net, x, v, u, at)
    assert_at_guard_pages(net, at)
    for i in np.ndindex(*lead):
        if not near_corner(net, x[i]):
            assert_right(net, x[i], y[i], jac[i])
    found["batches" if lead else "single samples"] += 1


if __name__ == "__main__":
    compile_all()
    attack(check, 2000)
