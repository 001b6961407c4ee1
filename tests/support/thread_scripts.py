"""What the thread tests run in a process of its own: ``python -m support.thread_scripts NAME ARGUMENTS``."""

import multiprocessing
import os
import signal
import sys
import threading
import time

import numpy as np

from support.oracles import Case


def network():
    return Case((500, 100, 10)).network()


def samples(count):
    return np.random.default_rng(0).standard_normal((count, 500))


def same(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def fork():
    """Use threads, fork while another thread is in the middle of a batch, and use them in the child."""
    net, x = network(), samples(300)
    expected = net.value_and_jacobian(x, threads=3)
    busy = threading.Thread(target=lambda: [net.value_and_jacobian(x, threads=3) for _ in range(20)])
    busy.start()
    for _ in range(5):
        child = os.fork()
        if not child:
            signal.alarm(60)
            right = threading.active_count() == 1 and same(net.value_and_jacobian(x, threads=3), expected)
            os._exit(0 if right and threading.active_count() <= 3 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    busy.join()
    assert same(net.value_and_jacobian(x, threads=3), expected)
    print("done")


def jacobians(net, x):
    return net.value_and_jacobian(x, threads=2)


def pool(method):
    net, x = network(), samples(200)
    expected = net.value_and_jacobian(x, threads=2)
    with multiprocessing.get_context(method).Pool(2) as workers:
        for got in workers.starmap(jacobians, [(net, x)] * 4):
            assert same(got, expected)
    print("done")


def long_batch(what, n_threads):
    """Return a call that takes minutes and little memory: one small sample many times."""
    net = Case((4, 1000, 1000, 8)).network()
    x = np.broadcast_to(np.ones(4), (2_000_000, 4))
    if what == "value_and_jacobian":
        net.value_and_jacobian(x[:300], threads=n_threads)
        return lambda: net.value_and_jacobian(x, threads=n_threads)
    net.sensitivity(x[:300], what, threads=n_threads)
    return lambda: net.sensitivity(x, what, threads=n_threads)


def threads_of_process():
    """Return how many threads there are by the system's count, those of NumPy's BLAS among them."""
    folder = "/proc/self/task"
    return len(os.listdir(folder)) if os.path.isdir(folder) else threading.active_count()


def threads_left(before):
    """Return how many threads there are beyond ``before``, once the system has noticed which ended."""
    for _ in range(1000):
        left = threads_of_process() - before
        if left <= 0:
            return 0
        time.sleep(0.005)
    return left


def interrupt(n_threads, what):
    """Print how many seconds Ctrl-C took, how many threads it leaves, and whether the next call is right."""
    net = network()
    expected = net.value_and_jacobian(samples(300))
    before = threads_of_process() + int(n_threads) - 1  # The helpers stay, for the next batch.
    call, sent = long_batch(what, int(n_threads)), []

    def send():
        time.sleep(0.5)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        call()
    except KeyboardInterrupt:
        seconds = time.monotonic() - sent[0]
    sender.join()
    left = threads_left(before)
    again = same(net.value_and_jacobian(samples(300), threads=int(n_threads)), expected)
    print(f"{seconds:.3f}", left, "right" if again else "wrong")


def long(n_threads):
    call = long_batch("mean_abs", int(n_threads))
    print("begins", flush=True)
    call()


if __name__ == "__main__":
    {f.__name__: f for f in (fork, pool, interrupt, long)}[sys.argv[1]](*sys.argv[2:])
