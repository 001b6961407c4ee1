"""Machine code that is shipped runs without numba, and only where it is the kernels' own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastjac
from fastjac.kernels import machine_code

PACKAGE = Path(fastjac.__file__).parent
TOOL = PACKAGE.parents[1] / "tools" / "machine_code.py"
# Calls whatever needs no compiler, and prints whether it was there.
CALLS = """
import sys
import numpy as np
import fastjac
from fastjac import graph

rng = np.random.default_rng(0)
x, found = rng.normal(size=3), []
weights = [(rng.normal(size=size), rng.normal(size=size[1])) for size in ((3, 9), (9, 5))]
for activation in fastjac.layers.ACTIVATIONS:
    if activation not in ("softmax", "log_softmax"):
        net = fastjac.Network(weights, activation=activation)
        found += net.value_and_jacobian(x)
        found += [*net.vjp(x, np.ones(5)), *net.jvp(x, x), net(x), net.jacobian(np.tile(x, (40, 1)))]
found += [fastjac.explain.what_if(net, x, 0.5)]
y, jac = net.value_and_jacobian(x)
y, jac = np.zeros_like(y), np.zeros_like(jac)
net.bind(x, (y, jac))()
found += [y, jac, *fastjac.value_and_jacobian(x, *weights[0], *weights[1])]
value = graph.input(3)
net = fastjac.Network(graph.softmax(value + graph.affine(value, rng.normal(size=(3, 3)), None, "tanh")))
found += net.value_and_jacobian(x)
print("numba" in sys.modules, np.concatenate([np.ravel(each) for each in found]).tobytes().hex())
"""
# Prints whether shipped code would run.
IS_THERE = """
import numpy as np
from fastjac.kernels import machine_code
print(machine_code.shipped_file(np.dtype(np.float64)) is not None)
"""
VALUE = """
import sys
import fastjac
print(fastjac.Network([([[2.0]], None)], head="identity")([3.0])[0], "numba" in sys.modules)
"""


def run(script, package, **environment):
    here = {name: value for name, value in os.environ.items() if name not in machine_code.SETTINGS}
    merged = {**here, "PYTHONPATH": str(package.parent), **environment}
    done = subprocess.run([sys.executable, "-c", script], env=merged, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package that ships code of float64 for this processor."""
    folder = tmp_path_factory.mktemp("site") / "src" / "fastjac"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    tool = folder.parents[1] / "tools" / TOOL.name
    tool.parent.mkdir()
    shutil.copy(TOOL, tool)
    command = [sys.executable, str(tool), machine_code.level(), "--dtype", "float64"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(folder.parent)}, check=True)
    return folder


@pytest.fixture
def shipped(package):
    """The file of the shipped code, which is put back afterwards."""
    (path,) = (package / "kernels" / "shipped").iterdir()
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def test_all_calls_compute_without_the_compiler_what_they_compute_with_it(package, tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = run(CALLS, package, **environment)
    assert found[0] == "False"
    assert not list(tmp_path.iterdir())
    compiled = run(CALLS, package, FASTJAC_NATIVE="1")
    assert compiled[0] == "True"
    # One processor's compiler and that of its kind may order the terms of a sum otherwise.
    first, second = (np.frombuffer(bytes.fromhex(each[1])) for each in (found, compiled))
    np.testing.assert_allclose(first, second, rtol=1e-13, atol=1e-13)


def test_c_functions_and_handles_call_the_shipped_code(package):
    script = """
import numpy as np
import fastjac
from fastjac.embedding import value_and_jacobian
from fastjac.kernels import cache
net = fastjac.Network([([[2.0]], None)], head="tanh")
x, y, jac = np.ones(1), np.zeros(1), np.zeros((1, 1))
with net.c_function() as function:
    pointers = [each.ctypes.data_as(function.ctypes.argtypes[1]) for each in (x, y, jac)]
    print(function.ctypes(function.context, *pointers), abs(y[0] - np.tanh(2.0)) < 1e-15)
print(value_and_jacobian(net.handle(), x, y, jac), len(cache._compiled))
"""
    assert run(script, package) == ["0", "True", "0", "0"]


@pytest.mark.parametrize("where", [0, 32, 64, -1], ids=["sources", "digest", "first", "last"])
def test_a_changed_byte_is_not_run(package, shipped, where):
    content = bytearray(shipped.read_bytes())
    content[where] ^= 1
    shipped.write_bytes(content)
    assert run(VALUE, package) == ["6.0", "True"]


@pytest.mark.parametrize("size", [0, 10, 64, 5000])
def test_a_truncated_file_is_not_run(package, shipped, size):
    shipped.write_bytes(shipped.read_bytes()[:size])
    assert run(VALUE, package) == ["6.0", "True"]


def test_code_of_other_sources_is_not_run(package, shipped):
    changed = package / "kernels" / "forward.py"
    text = changed.read_text()
    try:
        changed.write_text(text + "# Another version.\n")
        assert run(IS_THERE, package) == ["False"]
    finally:
        changed.write_text(text)
    assert run(VALUE, package) == ["6.0", "False"]


def test_who_wants_other_code_gets_it(package):
    assert run(IS_THERE, package) == ["True"]
    for name in ("NUMBA_BOUNDSCHECK", "NUMBA_CPU_NAME", "NUMBA_OPT"):
        assert run(IS_THERE, package, **{name: "1"}) == ["False"], name


def test_who_wants_code_for_exactly_this_processor_gets_it(package):
    assert run(VALUE, package, FASTJAC_NATIVE="1") == ["6.0", "True"]


def test_code_for_another_layout_of_arrays_is_not_run(package):
    script = "from fastjac.kernels import machine_code\nmachine_code.LAYOUT = ()\n" + VALUE
    assert run(script, package) == ["6.0", "True"]


def test_a_processor_that_compilers_use_otherwise_has_no_shipped_code(monkeypatch):
    from llvmlite import binding

    class Features(dict):
        def flatten(self):
            return ",".join(f"+{name}" for name in self)

    def level(features):
        monkeypatch.setattr(
            binding, "get_host_cpu_features", lambda: Features.fromkeys(features.split(), True)
        )
        return machine_code.level()

    levels = machine_code.LEVELS
    for name, features in levels.items():
        assert level(features) == name
    assert level(levels["x86-64-v2"] + " avx avx2") is None  # but without fma
    assert level(levels["x86-64-v3"] + " avx512f") is None
    assert level("sse2") is None
