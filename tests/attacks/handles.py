"""Copied, pickled and outlived handles, in one process and in forks: a copy is always `MISMATCH`."""

import copy
import os
import pickle
import signal

import numpy as np

from attacks.cases import attack, note
from attacks.draws import compile_all, draw_case
from fastjac.embedding import MISMATCH, OK, value_and_jacobian

COPIES = {
    "pickled": lambda handle: pickle.loads(pickle.dumps(handle)),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "copied by NumPy": np.array,
    "of its bytes": lambda handle: np.frombuffer(bytearray(handle.tobytes()), np.int64),
}


def assert_mismatch(what, copied, x, y, jac):
    y[:], jac[:] = 7, 7
    status = value_and_jacobian(copied, x, y, jac)
    assert status == MISMATCH and (y == 7).all() and (jac == 7).all(), f"{what}: status {status}"


def in_fork(function, *arguments):
    """Call a function in a fork, and assert that it returned."""
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        try:
            function(*arguments)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def assert_ended_well(what, pid):
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"{what}: the fork ended with {status}"


def check(seed, number, found):
    rng = np.random.default_rng([seed, number])
    case = draw_case(rng)
    note(case)
    net, x = case.network(), case.x()
    expected = net.value_and_jacobian(x)
    y, jac = np.zeros_like(expected[0]), np.zeros_like(expected[1])

    def assert_right(handle):
        y[:], jac[:] = np.nan, np.nan
        assert value_and_jacobian(handle, x, y, jac) == OK
        assert y.tobytes() == expected[0].tobytes() and jac.tobytes() == expected[1].tobytes()

    reading, writing = os.pipe()

    def worker():
        with open(reading, "rb") as file:
            assert_mismatch("sent to a fork", pickle.loads(file.read(case_bytes)), x, y, jac)

    case_bytes = len(pickle.dumps(net.handle()))
    elder = in_fork(worker)  # Before the handle was made.
    handles = [net.handle() for _ in range(int(rng.integers(1, 100)))]
    handle = handles[rng.integers(len(handles))]
    sent = pickle.dumps(handle)
    os.write(writing, sent.ljust(case_bytes))
    copies = {what: make(handle) for what, make in COPIES.items()}
    for what, copied in copies.items():
        assert_mismatch(what, copied, x, y, jac)
    assert_right(handle)
    assert_ended_well("older fork", elder)
    os.close(reading)
    os.close(writing)

    def younger():
        assert_right(handle)
        for what, copied in copies.items():
            assert_mismatch(f"{what}, in a fork", copied, x, y, jac)

    assert_ended_well("younger fork", in_fork(younger))
    del handle, handles
    later = [net.handle() for _ in range(int(rng.integers(1, 100)))]  # Perhaps in the same memory.
    for what, copied in copies.items():
        assert_mismatch(f"{what}, outlived", copied, x, y, jac)
        for _ in range(20):
            assert_mismatch("pickled in a loop", pickle.loads(sent), x, y, jac)
    for handle in later[:3]:
        assert_right(handle)
    found["copies called"] += 23 * len(copies) + 1


if __name__ == "__main__":
    compile_all()
    attack(check, 1000)
