"""Damaged files of every format that `fastjac.load` reads.

It returns a network or raises `ModelError`, with no other warning than that of NaN weights, and takes no more
time and memory than the file's size allows. HDF5 files are read in forks that have imported h5py already,
where `load` starts a Python process for each: that would take most of the time.
"""

import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
import types
import warnings

import numpy as np

import fastjac
from attacks.cases import attack, note
from attacks.draws import compile_all
from attacks.mutations import mutated
from attacks.originals import originals
from fastjac.models import hdf5, hdf5_child

ORIGINALS = originals()
FOLDER = tempfile.mkdtemp(prefix="fastjac-attack-")


def _run(command, input, **_):
    """Stand in for `subprocess.run` of the child that reads HDF5."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as told:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                signal.alarm(60)
                sys.stdin = io.TextIOWrapper(io.BytesIO(input))
                sys.stdout, sys.stderr = io.TextIOWrapper(out), io.TextIOWrapper(told, "utf-8", "replace")
                code = hdf5_child.main()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        told.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), told.read())


hdf5.subprocess = types.SimpleNamespace(run=_run, TimeoutExpired=subprocess.TimeoutExpired)


def _seconds():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def _memory(field):
    """Return the memory of this process, `VmRSS` or its peak `VmHWM`; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
    except OSError:
        return 0


def _forget_peak():
    if os.path.exists("/proc/self/clear_refs"):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def check(seed, number, found):
    rng = np.random.default_rng([seed, number])
    suffix = list(ORIGINALS)[number % len(ORIGINALS)]
    data, how = ORIGINALS[suffix][rng.integers(len(ORIGINALS[suffix]))]
    data = mutated(rng, suffix, data)
    path = os.path.join(FOLDER, f"{number}{suffix}")
    note(f"fastjac.load({path!r}, **{how})")
    with open(path, "wb") as file:
        file.write(data)
    _forget_peak()
    memory, seconds = _memory("VmRSS"), _seconds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            net = fastjac.load(path, **how)
        except fastjac.ModelError as error:
            assert str(error).startswith(path), str(error)
            net = None
    seconds, memory = _seconds() - seconds, _memory("VmHWM") - memory
    others = [f"{one.category.__name__}: {one.message}" for one in caught if "NaN" not in str(one)]
    assert not others, others
    assert seconds <= 2 + len(data) / 10**7, f"{seconds} s of processor time for {len(data)} bytes"
    assert memory <= 50 * 10**6 + 20 * len(data), f"{memory} bytes of memory for {len(data)} bytes"
    if net is not None:
        y, jac = net.value_and_jacobian(np.zeros(net.n_inputs))
        assert y.shape == (net.n_outputs,) and jac.shape == (net.n_outputs, net.n_inputs)
    os.unlink(path)
    found[f"{suffix} {'loaded' if net else 'refused'}"] += 1


def _warm():
    """Import and compile once what is no file's cost."""
    compile_all()
    for suffix, files in ORIGINALS.items():
        for data, how in files:
            path = os.path.join(FOLDER, f"original{suffix}")
            with open(path, "wb") as file:
                file.write(data)
            fastjac.load(path, **how)
            os.unlink(path)


if __name__ == "__main__":
    _warm()
    attack(check, 40_000)
    os.rmdir(FOLDER)
