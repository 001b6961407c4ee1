"""A network in forked, spawned and served processes, in asyncio's threads, and under signals."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from fastjac.embedding import OK, value_and_jacobian
from support import process_scripts
from support.oracles import Case

METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """Compile once what the processes then find, however many of them there are."""
    process_scripts.results([case.network() for case in process_scripts.CASES], 0)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", METHODS)
def test_workers_started_before_or_after_the_first_call_are_right(method, when):
    done = subprocess.run(
        [sys.executable, "-m", "support.process_scripts", method, when],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr == ""


def test_asyncio_threads_share_a_network():
    case = Case((400, 300, 10))  # Long enough for calls to overlap.
    net = case.network()
    xs = np.random.default_rng(0).standard_normal((400, 400))
    expected = [net.jacobian(x) for x in xs]

    async def serve():
        return await asyncio.gather(*(asyncio.to_thread(net.value_and_jacobian, x) for x in xs))

    for (_, jac), right in zip(asyncio.run(serve()), expected, strict=True):
        np.testing.assert_array_equal(jac, right)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_signals_during_calls_change_nothing():
    """The handler itself calls the network that it interrupts."""
    case = Case((200, 300, 10))
    net = case.network()
    xs = np.random.default_rng(0).standard_normal((2, 200))
    expected = [net.jacobian(x) for x in xs]
    batch = np.repeat(xs[:1], 50, axis=0)
    expected_batch = net.jacobian(batch)
    jac, batch_jac = np.empty((10, 200)), np.empty((50, 10, 200))
    handled = []

    def handler(number, frame):
        handled.append(np.array_equal(net.jacobian(xs[1]), expected[1]))

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        deadline = time.monotonic() + 60
        while len(handled) < 200 and time.monotonic() < deadline:
            assert np.array_equal(net.jacobian(xs[0], out=jac), expected[0])
            net.jacobian(batch, out=batch_jac, threads=2)
            assert np.array_equal(batch_jac, expected_batch)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(handled) >= 200
    assert all(handled)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_handle_and_a_c_function_survive_a_fork():
    script = """
import ctypes, os
import numpy as np
from support.oracles import Case
from fastjac.embedding import OK, value_and_jacobian

case = Case((8, 32, 4))
net, x = case.network(), case.x()
handle, function, expected = net.handle(), net.c_function(), net.jacobian(x)
child = os.fork()
for _ in range(100):
    y, jac = np.empty(4), np.empty((4, 8))
    assert value_and_jacobian(handle, x, y, jac) == OK
    assert np.array_equal(jac, expected)
    jac[:] = 0
    pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for a in (x, y, jac)]
    assert function.ctypes(function.context, *pointers) == OK
    assert np.array_equal(jac, expected)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_each_thread_has_a_handle_of_its_own():
    case = Case((64, 64, 10))
    net = case.network()
    xs = np.random.default_rng(0).standard_normal((8, 64))
    expected = [net.jacobian(x) for x in xs]
    right = [False] * len(xs)

    def work(number):
        handle, y, jac = net.handle(), np.empty(10), np.empty((10, 64))
        same = True
        for _ in range(200):
            same &= value_and_jacobian(handle, xs[number], y, jac) == OK
            same &= np.array_equal(jac, expected[number])
        right[number] = same

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(right)
