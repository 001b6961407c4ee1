"""What numba compiles for a routine: all of it once, or as it does itself where its version is not known."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit, types

import fastjac
from fastjac.kernels import cache, linking, routines, signatures
from fastjac.kernels.panels import inner, vector_bytes

# Prints a digest of what the methods return, and how they were compiled.
RESULTS = """
import hashlib
import numba
if {version!r}:
    numba.__version__ = {version!r}
import numpy as np
import fastjac
from fastjac.kernels import linking

digest = hashlib.sha256()
rng = np.random.default_rng(0)
for widths in ((8, 32, 4), (3, 40, 40, 2), (40, 5, 3, 5, 40)):
    layers = [(rng.normal(size=shape), rng.normal(size=shape[1])) for shape in zip(widths, widths[1:])]
    for activation, head in (("relu", "softmax"), ("elu", "log_softmax"), ("gelu", "identity")):
        net = fastjac.Network(layers, activation, head)
        for lead in ((), (19,)):
            x, u, v = (rng.normal(size=(*lead, widths[i])) for i in (0, 0, -1))
            for result in (net(x), *net.value_and_jacobian(x), *net.vjp(x, v), *net.jvp(x, u)):
                digest.update(result.tobytes())
print(linking.links_once, digest.hexdigest())
"""


def results(version, folder):
    """Return what `RESULTS` prints with a version of numba, None for the one that is installed."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", RESULTS.format(version=version)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not linking.links_once, reason="this version of numba is not known")
def test_an_unknown_version_of_numba_computes_the_same(tmp_path):
    known = results(None, os.environ["NUMBA_CACHE_DIR"])
    unknown = results("9.9.9", tmp_path)
    assert (known[0], unknown[0]) == ("True", "False")
    assert known[1] == unknown[1]


@pytest.mark.skipif(not linking.links_once, reason="this version of numba is not known")
def test_only_the_outermost_function_has_machine_code():
    @inner
    def twice(x):
        return 2 * x

    def run(x):
        return twice(x) + 1

    routine = cache.compiled(run, f"test_outermost_{os.getpid()}", types.intp(types.intp))
    assert routine(20) == 41
    (compiled,) = twice.overloads.values()
    assert compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name) == 0
    (compiled,) = routine.overloads.values()
    _, module = cache.instructions(routine)
    defined = {function.name for function in module.functions if not function.is_declaration}
    assert defined == {compiled.fndesc.llvm_func_name, compiled.fndesc.llvm_cpython_wrapper_name}


def test_ordinary_functions_call_inner_ones_and_routines():
    dtype = np.dtype(np.float32)
    net = fastjac.Network([(np.ones((8, 4), dtype), None)])
    context = net._calls.contexts
    context.add()
    routine, mode = routines.routine(dtype), signatures.VALUE

    @njit
    def call(at, x, y):
        return routine(at, mode, 1, x.ctypes.data, 0, y.ctypes.data, 0), vector_bytes(y.dtype, 1)

    x, y = np.ones(8, dtype), np.zeros(4, dtype)
    status, size = call(int(context.made[0].address), x, y)
    assert status == signatures.OK
    assert size == vector_bytes.py_func(dtype, 1)
    np.testing.assert_array_equal(y, np.full(4, 0.25))


def test_the_instructions_of_a_routine_are_kept_once_asked_for(tmp_path, monkeypatch):
    name, module = cache.instructions(routines.routine(np.dtype(np.float64)))
    monkeypatch.setattr(cache, "_dispatcher", None)
    again, kept = cache.instructions(routines.routine(np.dtype(np.float64)))
    assert (again, str(kept)) == (name, str(module))
    assert not kept.get_function(name).is_declaration


def test_an_inner_function_is_called_by_ordinary_ones_and_by_routines_after_them():
    @inner
    def twice(x):
        return 2 * x

    @inner
    def six_times(x):
        return 2 * x + twice(twice(x))

    ordinary = njit(lambda x: six_times(x) + 1)
    assert ordinary(5) == 31
    routine = cache.compiled(lambda x: twice(x) + six_times(x), "test_after", types.intp(types.intp))
    assert routine(5) == 40
    assert njit(lambda x: six_times(x) + 2)(5) == 32
