"""What the process tests run in a process of its own: ``python -m support.process_scripts METHOD WHEN``.

The network goes to workers started by METHOD (fork, spawn, forkserver), with or without a call in the
parent before them.
"""

import multiprocessing
import sys

import numpy as np

from support.oracles import DTYPES, Case

CASES = [Case((8, 32, 4), dtype=dtype) for dtype in DTYPES] + [Case((30, 5, 40, 20), "tanh")]
WORKERS = 3


def results(networks, seed):
    """All methods of all networks at some inputs of this seed, one array."""
    rng = np.random.default_rng(seed)
    found = []
    for net in networks:
        x = rng.standard_normal(net.n_inputs).astype(net.dtype)
        y, jac = net.value_and_jacobian(x)
        found += [y, jac, net.value_and_jacobian(np.stack([x] * 5), threads=2)[1][-1]]
        found += [*net.vjp(x, y), *net.jvp(x, x)]
    return np.concatenate([array.astype(float).ravel() for array in found])


def work(networks, seed, queue):
    for _ in range(20):
        found = results(networks, seed)
    queue.put((seed, found))


def main(method, when):
    context = multiprocessing.get_context(method)
    networks = [case.network() for case in CASES]
    handle = networks[0].handle()
    if when == "after":
        results(networks, 0)
    queue = context.Queue()
    workers = [context.Process(target=work, args=(networks, seed, queue)) for seed in range(WORKERS)]
    for worker in workers:
        worker.start()
    own = [results(networks, seed) for seed in range(WORKERS)]  # At the same time as the workers.
    for _ in range(WORKERS):
        seed, found = queue.get(timeout=300)
        assert np.array_equal(found, own[seed]), seed
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert handle.base is not None
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
