"""One network, many threads: each gets its own right answer."""

import functools
import gc
import threading
import weakref

import numpy as np
import pytest
from oracles import DTYPES, Case

THREADS = 8


def run(*functions):
    """Run each in a thread of its own, all released at once; raise what any of them raised."""
    barrier, errors = threading.Barrier(len(functions)), []

    def guarded(function):
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(8, 32, 4), (500, 100, 10), (30, 5, 40, 20)])
def test_eight_threads_share_a_network(widths, dtype):
    case = Case(widths, dtype=dtype)
    net = case.network()
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((THREADS, 20, widths[0])).astype(dtype)
    v, u = np.ones(widths[-1], dtype), np.ones(widths[0], dtype)
    expected = [
        [(*net.value_and_jacobian(x), net.vjp(x, v)[1], net.jvp(x, u)[1]) for x in part] for part in xs
    ]

    def work(i):
        y, jac = np.empty(widths[-1], dtype), np.empty((widths[-1], widths[0]), dtype)
        for _ in range(10):
            for x, right in zip(xs[i], expected[i], strict=True):
                net.value_and_jacobian(x, out=(y, jac))
                got = y, jac, net.vjp(x, v)[1], net.jvp(x, u)[1]
                assert all(np.array_equal(a, b) for a, b in zip(got, right, strict=True))

    run(*(lambda i=i: work(i) for i in range(THREADS)))


def test_threads_with_networks_of_their_own_do_not_meet():
    cases = [Case((10 + i, 20, 5), seed=i) for i in range(THREADS)]
    networks = [case.network() for case in cases]
    expected = [net.jacobian(case.x()) for net, case in zip(networks, cases, strict=True)]

    def work(i):
        for k in range(200):
            j = (i + k) % THREADS
            assert np.array_equal(networks[j].jacobian(cases[j].x()), expected[j])

    run(*(lambda i=i: work(i) for i in range(THREADS)))


def test_a_network_is_freed_when_its_threads_are_done():
    case = Case((20, 30, 5))
    net = case.network()
    gone = weakref.ref(net)
    run(*[functools.partial(net.jacobian, case.x()) for _ in range(THREADS)])
    del net
    gc.collect()
    assert gone() is None
