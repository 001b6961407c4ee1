"""One network, many threads, callers' and ours: each gets its own right answer, and none is left behind."""

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from fastjac import Network
from fastjac.batches import chunks, threads
from support.oracles import DTYPES, Case

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
    contexts = net._calls.contexts.made
    assert 1 <= len(contexts) <= THREADS
    assert not any(context.record["taken"] for context in contexts)


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


def helpers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastjac")]


def take_a_while(start, stop):
    """Be at work without the interpreter's lock, as the kernels are."""
    time.sleep(0.001)


@pytest.mark.parametrize("n_helpers", [0, 1, 3, 20])
def test_every_chunk_is_worked_on_once(n_helpers):
    done = []
    threads.run(lambda start, stop: done.append((start, stop)), ((i, i + 1) for i in range(500)), n_helpers)
    assert sorted(done) == [(i, i + 1) for i in range(500)]


def test_the_helpers_are_shared_and_wait_for_more():
    for n_helpers in (1, 3, 2):
        threads.run(take_a_while, iter([(0, 1)] * 20), n_helpers)
    most = max(3, threads.cores() - 1, len(helpers()))
    for _ in range(5):
        threads.run(take_a_while, iter([(0, 1)] * 20), 3)
    assert 1 <= len(helpers()) <= most


def test_work_in_work_in_many_callers_does_not_block():
    done = []

    def deeper(start, stop):
        threads.run(lambda start, stop: done.append(1), iter([(0, 1)] * 5), 2)

    def call():
        threads.run(deeper, iter([(0, 1)] * 10), 3)

    run(*[call] * THREADS)
    assert len(done) == THREADS * 10 * 5


@pytest.mark.parametrize("in_helper", [False, True])
def test_what_goes_wrong_in_any_thread_stops_the_work_and_is_raised(in_helper):
    caller, begun, at_work = threading.current_thread(), [], []

    def work(start, stop):
        begun.append(start)
        at_work.append(start)
        try:
            time.sleep(0.01)  # Another thread takes a chunk meanwhile.
            if (threading.current_thread() is not caller) == in_helper:
                raise MemoryError("no room")
            time.sleep(0.05)  # This chunk is not done when the other raises.
        finally:
            at_work.remove(start)

    with pytest.raises(MemoryError, match="no room"):
        threads.run(work, ((i, i + 1) for i in range(10_000)), 2)
    assert not at_work
    assert len(begun) < 1000
    threads.run(lambda start, stop: None, iter([(0, 1)] * 10), 2)


def test_nothing_is_kept_of_a_batch():
    class Work:
        def __call__(self, start, stop):
            take_a_while(start, stop)

    work = Work()
    gone = weakref.ref(work)
    # More helpers than chunks: some come too late.
    threads.run(work, iter([(0, 1)] * 3), 6)
    del work
    for _ in range(1000):
        if gone() is None:
            break
        time.sleep(0.01)  # A helper that came too late lets go of the work soon.
    assert gone() is None


def test_a_network_is_freed_though_the_helpers_worked_for_it():
    case = Case((50, 60, 10))
    net = case.network()
    net.jacobian(np.zeros((2000, 50)), threads=4)
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_callers_with_many_threads_each(dtype):
    cases = [Case((20 + i, 40, 6), dtype=dtype, seed=i) for i in range(THREADS)]
    networks = [case.network() for case in cases]
    xs = [np.random.default_rng(i).standard_normal((700, 20 + i)).astype(dtype) for i in range(THREADS)]
    expected = [net.value_and_jacobian(x) for net, x in zip(networks, xs, strict=True)]

    def work(i):
        for k in range(10):
            j = (i + k) % THREADS
            for got, right in zip(networks[j].value_and_jacobian(xs[j], threads=3), expected[j], strict=True):
                assert got.tobytes() == right.tobytes()

    run(*(lambda i=i: work(i) for i in range(THREADS)))


def script(*arguments, **options):
    """Run a part of the script in a process of its own; return what it printed."""
    command = [sys.executable, "-m", "support.thread_scripts", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_after_fork_makes_helpers_of_its_own():
    assert script("fork") == "done\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_a_pool_use_threads(method):
    if method == "forkserver" and not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    assert script("pool", method) == "done\n"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("n_threads", ["1", "2", "4"])
@pytest.mark.parametrize("what", ["value_and_jacobian", "mean_abs", "frobenius"])
def test_ctrl_c_stops_a_long_batch_and_leaves_no_thread(n_threads, what):
    seconds, left, again = script("interrupt", n_threads, what).split()
    # It takes minutes, and is to stop within one second where nothing else keeps the cores busy.
    assert float(seconds) < 5
    assert left == "0"
    assert again == "right"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("n_threads", ["1", "2"])
def test_ctrl_c_ends_a_process(n_threads):
    command = [sys.executable, "-m", "support.thread_scripts", "long", n_threads]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


def test_cores_are_those_that_the_process_may_use():
    assert threads.thread_count("all") == threads.cores() >= 1
    assert chunks.helpers(10**6, chunks.Cost(10**6), threads.thread_count(5)) == 4
    assert chunks.helpers(1, chunks.Cost(1), threads.thread_count(5)) == 0
    # Each thread has work enough to be woken for, and a chunk of its own.
    assert chunks.helpers(chunks.SHORTEST, chunks.Cost(1), 5) == 0
    assert chunks.helpers(2 * chunks.SHORTEST, chunks.Cost(1), 5) == 1
    assert chunks.helpers(16, chunks.Cost(chunks.SHORTEST, 16), 5) == 0
    assert chunks.helpers(17, chunks.Cost(chunks.SHORTEST, 16), 5) == 1
    for multiply_adds in (1, 7, chunks.SHORTEST - 1, chunks.SHORTEST, 3 * chunks.SHORTEST):
        cost = chunks.Cost(multiply_adds)
        least = cost.shared_from
        assert chunks.helpers(least - 1, cost, 5) == 0
        assert least == 1 or chunks.helpers(least, cost, 5) == 1
    # Where samples are not taken together, each may be a chunk.
    assert chunks.helpers(3, chunks.Cost(chunks.LONGEST, 16), 5) == 2


def test_a_batch_too_short_for_threads_takes_the_way_of_one(monkeypatch):
    net = Network([(np.eye(4), None)], head="tanh")
    x, out = np.ones((9, 4)), (np.zeros((9, 4)), np.zeros((9, 4, 4)))
    monkeypatch.setattr(threads, "run", None)
    assert net.value_and_jacobian(x, out=out, threads=3) == out
    assert net.jacobian(x, threads="all").shape == (9, 4, 4)
    with pytest.raises(ValueError, match="threads is 0"):
        net(x, threads=0)
