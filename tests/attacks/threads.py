"""Sixteen threads on shared networks, with forks and signals among them: every result has its expected bits.

A handler of SIGALRM computes in the middle of whatever the main thread does. Forked children compute, also
with threads of their own, while the other threads are in their calls.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
import warnings

import numpy as np

from attacks.cases import options
from attacks.draws import compile_all, draw_case
from fastjac import embedding
from support.oracles import Case

THREADS, SAMPLES = 16, 70
CASES = [
    Case((8, 32, 4)),
    Case((500, 100, 10), dtype=np.float32),
    Case((40, 5, 3, 5, 40)),
    Case((33, 3, 3, 20)),
]
MOST_SECONDS = 60  # What takes longer hangs.


class Shared:
    """A network, samples, and the bits of all results."""

    def __init__(self, case, rng):
        self.case, self.net = case, case.network()
        n, m = self.net.n_inputs, self.net.n_outputs
        self.x, self.v, self.u = (
            rng.standard_normal((SAMPLES, size)).astype(self.net.dtype) for size in (n, m, n)
        )
        self.calls = {
            "value": (self.net, self.x),
            "jacobian": (self.net.jacobian, self.x),
            "value_and_jacobian": (self.net.value_and_jacobian, self.x),
            "vjp": (self.net.vjp, self.x, self.v),
            "jvp": (self.net.jvp, self.x, self.u),
            "mean_abs": (self.net.sensitivity, self.x),
        }
        self.expected = {}
        for name in self.calls:
            for sample in (*range(SAMPLES), slice(None)):
                if name != "mean_abs" or isinstance(sample, slice):
                    self.expected[name, str(sample)] = self.bits(name, sample)

    def bits(self, name, sample, **threads):
        method, *arguments = self.calls[name]
        result = method(*(array[sample] for array in arguments), **threads)
        return b"".join(array.tobytes() for array in (result if isinstance(result, tuple) else (result,)))

    def check(self, rng, most_threads=3):
        """Compare one random call."""
        name = str(rng.choice(list(self.calls)))
        if name == "mean_abs" or rng.random() < 0.2:
            sample, threads = slice(None), {"threads": int(rng.integers(1, most_threads + 1))}
        else:
            sample, threads = int(rng.integers(SAMPLES)), {}
        got = self.bits(name, sample, **threads)
        assert got == self.expected[name, str(sample)], f"{self.case}: {name} of {sample}, {threads}"


class Attack:
    """The threads, the handler and the forks, and what they found."""

    def __init__(self, seed):
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.shared = [Shared(case, rng) for case in (*CASES, *(draw_case(rng) for _ in range(4)))]
        self.errors, self.ended, self.forking = [], threading.Event(), False
        self.counts = dict.fromkeys(
            [f"thread {number}" for number in range(THREADS)] + ["signals", "forks"], 0
        )

    def one(self, rng, **options):
        self.shared[rng.integers(len(self.shared))].check(rng, **options)

    def work(self, number):
        rng = np.random.default_rng([self.seed, number])
        shared = self.shared[number % len(self.shared)]
        handle, x = shared.net.handle(), shared.x[0]
        y, jac = (array.copy() for array in shared.net.value_and_jacobian(x))
        right = y.tobytes() + jac.tobytes()
        try:
            while not self.ended.is_set():
                self.one(rng)
                y[:], jac[:] = np.nan, np.nan
                assert embedding.value_and_jacobian(handle, x, y, jac) == embedding.OK
                assert y.tobytes() + jac.tobytes() == right, f"{shared.case}: handle"
                assert embedding.value_and_jacobian(handle.copy(), x, y, jac) == embedding.MISMATCH
                self.counts[f"thread {number}"] += 3
        except BaseException:
            self.fail(f"thread {number}: {traceback.format_exc()}")

    def fail(self, error):
        self.errors.append(error)
        self.ended.set()

    def handle_signal(self, number, frame):
        """Compute, on threads also, except where Python's own hooks of a fork hold an executor's lock."""
        self.counts["signals"] += 1
        try:
            rng = np.random.default_rng([self.seed, 10**6, self.counts["signals"]])
            self.one(rng, most_threads=1 if self.forking else 3)
        except BaseException:
            self.fail(f"signal: {traceback.format_exc()}")
        if not self.ended.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # Now, so that handlers do not pile up.

    def fork(self):
        self.counts["forks"] += 1
        number = self.counts["forks"]
        self.forking = True
        pid = os.fork()
        self.forking = False
        if not pid:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(MOST_SECONDS)
            rng, code = np.random.default_rng([self.seed, 10**7, number]), 1
            try:
                for _ in range(20):
                    self.one(rng)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return pid

    def run(self, seconds):
        deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self.work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        signal.signal(signal.SIGALRM, self.handle_signal)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        rng, children = np.random.default_rng(self.seed), []
        try:
            while time.monotonic() < deadline and not self.ended.is_set():
                children.append(self.fork())
                self.one(rng)
                if len(children) > 3:
                    self.reap(children.pop(0))
        except BaseException:
            self.fail(f"main thread: {traceback.format_exc()}")
        finally:
            self.ended.set()
            signal.setitimer(signal.ITIMER_REAL, 0)
            for thread in threads:
                thread.join()
        for child in children:
            self.reap(child)

    def reap(self, pid):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            self.fail(f"a fork ended with {status}")


def main():
    asked = options(__doc__, seconds=120)
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forks among threads.
    compile_all()
    # With the stacks of all threads, if they hang.
    faulthandler.dump_traceback_later(asked.seconds + MOST_SECONDS, exit=True)
    attack = Attack(asked.seed)
    attack.run(asked.seconds)
    calls = sum(count for name, count in attack.counts.items() if name.startswith("thread"))
    signals, forks = attack.counts["signals"], attack.counts["forks"]
    seen = f"{calls} calls in {THREADS} threads, {signals} signals, {forks} forks"
    if attack.errors:
        print("\n".join(attack.errors), file=sys.stderr)
        print(f"again: python -m attacks.threads --seed {asked.seed} --seconds {asked.seconds}")
        print(f"threads: VIOLATION after {seen}")
        sys.exit(1)
    print(f"threads: {asked.seconds:g} s, no violation; {seen}")


if __name__ == "__main__":
    main()
