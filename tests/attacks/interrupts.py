"""Dense Ctrl-C against a process that runs batches on threads.

It survives, leaves no more helper threads than a batch has, and computes right afterwards.
"""

import json
import select
import signal
import subprocess
import sys
import time

import numpy as np

from attacks.cases import options
from fastjac.batches.threads import cores
from support.oracles import Case
from support.thread_scripts import threads_left, threads_of_process

THREADS = max(4, cores())  # Helpers are started for as many as there are cores.
MOST_SECONDS = 120  # A process that takes longer to end hangs.


def victim():
    """Run batches until a line comes, while Ctrl-C interrupts them; print what is left as JSON."""
    cases = [Case((100, 60, 10)), Case((30, 5, 40, 20), "tanh", dtype=np.float32)]
    nets = [case.network() for case in cases]
    batches = [
        np.random.default_rng(0).standard_normal((2000, net.n_inputs)).astype(net.dtype) for net in nets
    ]
    calls = [
        call
        for net, x in zip(nets, batches, strict=True)
        for call in (
            lambda net=net, x=x: net.value_and_jacobian(x, threads=THREADS),
            lambda net=net, x=x: net.sensitivity(x, threads=THREADS),
            lambda net=net, x=x: list(net.iter_value_and_jacobian(x, 500, threads=THREADS)),
            lambda net=net, x=x: [net.vjp(x[0], np.ones(net.n_outputs)) for _ in range(100)],
        )
    ]
    expected = [
        [one.tobytes() for one in net.value_and_jacobian(x)] for net, x in zip(nets, batches, strict=True)
    ]
    before = threads_of_process()
    for call in calls:
        call()
    seen = {"sent here": 0, "interrupted": 0, "completed": 0, "wrong": 0}

    def interruptible(call):
        call()

    def handler(number, frame):
        """Raise where the call is, also while it cleans up; not in this file's own code."""
        seen["sent here"] += 1
        while frame is not None:
            if frame.f_code is interruptible.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    signal.signal(signal.SIGINT, handler)
    print("begins", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            interruptible(calls[number % len(calls)])
            seen["completed"] += 1
        except KeyboardInterrupt:
            seen["interrupted"] += 1
        number += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for net, x, right in zip(nets, batches, expected, strict=True):
        got = [one.tobytes() for one in net.value_and_jacobian(x, threads=THREADS)]
        seen["wrong"] += got != right
    seen["threads too many"] = threads_left(before + THREADS - 1)
    print(json.dumps(seen), flush=True)


def main():
    asked = options(__doc__, count=1000, seconds=10)
    command = [sys.executable, "-m", "attacks.interrupts", "victim"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begins\n"
    begun, sent = time.monotonic(), 0
    while sent < asked.count and process.poll() is None:
        # At an even pace over all the seconds.
        time.sleep(max(begun + sent * asked.seconds / asked.count - time.monotonic(), 0))
        process.send_signal(signal.SIGINT)
        sent += 1
    took = time.monotonic() - begun
    wrong, seen = [], {}
    try:
        text, _ = process.communicate("end\n", timeout=MOST_SECONDS)
        seen = json.loads(text) if text else {}
    except (subprocess.TimeoutExpired, BrokenPipeError):
        process.kill()
        wrong.append(f"it did not end in {MOST_SECONDS} s")
    if process.returncode:
        wrong.append(f"it ended with {process.returncode}")
    if not seen:
        wrong.append("it told nothing")
    elif seen["wrong"] or seen["threads too many"]:
        wrong.append("results are wrong, or threads are left")
    about = f"{sent} Ctrl-C in {took:.1f} s against {THREADS} threads; {seen}"
    if wrong:
        print(f"again: python -m attacks.interrupts --count {asked.count} --seconds {asked.seconds}")
        print(f"interrupts: VIOLATION: {'; '.join(wrong)}: {about}")
        sys.exit(1)
    print(f"interrupts: {about}, no violation")


if __name__ == "__main__":
    victim() if sys.argv[1:] == ["victim"] else main()
