"""What a process finds when it starts: code of earlier ones, another version's, damaged code, no folder.

Real processes throughout. Where it does not matter what is compiled, it is a small function, which takes
the same way through `fastjac.kernels.cache` as the routines do.
"""

import compileall
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastjac
from fastjac.kernels import cache, routines
from fastjac.layers import FLOATS

PACKAGE = Path(fastjac.__file__).parent
NO_FOLDER = "fastjac can write compiled code to no folder"

# Prints what it gets from a small compiled function, and whether it compiled it.
SMALL = """
import fastjac
from fastjac.kernels import cache
from numba import types

def triple(x):
    return 3 * x

function = cache.compiled(triple, "triple", types.intp(types.intp))
print(function(14), "compiled" if cache.file_of(function).compiled else "found")
"""
# The same for a real routine: the output of one layer that is hard_tanh of -5.
VALUE = """
import numpy as np
import fastjac
from fastjac.kernels import cache, routines

net = fastjac.Network([(np.ones((1, 1)), None)], head="hard_tanh")
routine = routines.routine(net.dtype)
print(net(np.array([-5.0]))[0], "compiled" if cache.file_of(routine).compiled else "found")
"""
# The same for an activation alone.
ACTIVATION = """
import numpy as np
from fastjac.kernels import activations, cache

routine = activations.routine("hard_tanh", np.dtype(np.float64))
a, slope = np.array([-5.0]), np.zeros(1)
routine(0.0, 0, a.ctypes.data, slope.ctypes.data, a.size)
print(a[0], "compiled" if cache.file_of(routine).compiled else "found")
"""


def start(script, package=PACKAGE, **environment):
    """Start a process that imports ``package``; None in ``environment`` removes a variable."""
    merged = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={name: value for name, value in merged.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out.split(), err


def run(script, package=PACKAGE, **environment):
    return finish(start(script, package, **environment))


def files(folder):
    found = (Path(folder) / "fastjac").glob("*.nbc")
    return sorted(path for path in found if not path.name.startswith("entry_"))


@pytest.fixture
def copy(tmp_path):
    """A copy of the package that nothing has been compiled in."""
    target = tmp_path / "site" / "fastjac"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", ".*_cache", "shipped"))
    return target


@pytest.fixture
def homeless():
    """An environment in which the package's folder is the only one that code may be kept in."""
    return {"NUMBA_CACHE_DIR": None, "HOME": os.devnull, "XDG_CACHE_HOME": os.devnull}


def test_importing_compiles_and_loads_nothing(tmp_path):
    script = """
import numba.core.event as event
with event.install_recorder("numba:compile") as compiled, event.install_recorder("numba:run_pass") as passes:
    import fastjac
from fastjac.kernels import cache
print(len(compiled.buffer), len(passes.buffer), len(cache._compiled))
"""
    found, err = run(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert found == ["0", "0", "0"]
    assert err == ""
    assert not list(tmp_path.iterdir())


def test_importing_loads_no_other_package(tmp_path):
    script = """
import sys

def packages():
    return {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)

before = packages()
import fastjac
print(*sorted(packages() - before))
"""
    assert run(script)[0] == ["fastjac", "numpy"]


def test_warmup_leaves_nothing_to_compile():
    script = """
import numba.core.event as event
import numpy as np
import fastjac
from fastjac.embedding import value_and_jacobian
ready = fastjac.warmup()
print(len(ready), sum(routine.compiled for routine in ready))
with event.install_recorder("numba:compile") as compiled:
    for dtype in (np.float32, np.float64):
        w1, w2 = np.ones((8, 32), dtype), np.ones((32, 4), dtype)
        net = fastjac.Network([(w1, None), (w2, None)])
        x, b1, b2 = np.ones(8, dtype), np.zeros(32, dtype), np.zeros(4, dtype)
        net(x), net.jacobian(x), net.value_and_jacobian(x), net.vjp(x, b2), net.jvp(x, x)
        y, jac = net.value_and_jacobian(np.ones((3, 8), dtype))
        net.bind(x, (y[0], jac[0]))(), net.handle(), net.c_function()
        fastjac.value_and_jacobian(x, w1, b1, w2, b2)
        value_and_jacobian(net.handle(), x, y[0], jac[0])
        for reduce in ("mean_abs", "class_mean", "frobenius", "spectral"):
            net.sensitivity(np.ones((3, 8), dtype), reduce)
        fastjac.explain.what_if(net, x, 0.0)
print(len(compiled.buffer))
"""
    count = len(FLOATS)
    ready = fastjac.warmup()
    assert len(ready) == count
    assert {routine.path.parent for routine in ready} == {Path(os.environ["NUMBA_CACHE_DIR"], "fastjac")}
    assert all(routine.path.is_file() for routine in ready)
    assert run(script)[0] == [str(count), "0", "0"]


def test_code_from_a_file_runs_before_numba_is_ready_to_compile():
    script = """
import sys
import numpy as np
import fastjac
from numba.core.runtime import rtsys
net = fastjac.Network([(np.ones((8, 4)), None)])
y, jac = net.value_and_jacobian(np.ones(8))
print(y[0], "numba.np.arrayobj" in sys.modules, rtsys._init)
"""
    routines.routine(np.dtype("f8"))
    assert run(script)[0] == ["0.25", "False", "False"]


def test_the_warmup_command_tells_what_and_where():
    done = subprocess.run([sys.executable, "-m", "fastjac", "warmup"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *dtypes, last = done.stdout.splitlines()
    assert [line.split()[0] for line in dtypes] == ["float32", "float64"]
    assert all(re.fullmatch(r"float(32|64) +(compiled|found) in [\d.]+ s", line) for line in dtypes)
    assert last == f"in {Path(os.environ['NUMBA_CACHE_DIR'], 'fastjac')}"


def test_one_dtype_alone_is_warmed_up():
    command = [sys.executable, "-m", "fastjac", "warmup", "--dtype", "float32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("float32 ") and len(done.stdout.splitlines()) == 2


def test_a_package_of_bytecode_alone_is_told_from_others(copy, homeless):
    assert compileall.compile_dir(copy, quiet=1, legacy=True)
    for source in copy.rglob("*.py"):
        source.unlink()
    assert run(SMALL, copy, **homeless) == (["42", "compiled"], "")
    assert run(SMALL, copy, **homeless) == (["42", "found"], "")


def test_whoever_waits_for_the_compiler_is_told(copy, homeless):
    found, err = run(VALUE, copy, **homeless)
    assert found == ["-1.0", "compiled"]
    assert err.splitlines() == [
        "fastjac: compiling for this processor, five to ten seconds; `fastjac warmup` does it ahead"
    ]
    assert run(VALUE, copy, **homeless) == (["-1.0", "found"], "")


def test_no_layout_or_dtype_compiles_in_a_request():
    net = fastjac.Network([(np.ones((8, 4)), None)])
    x = np.arange(16.0)
    for given in (x[::2], x[:8].astype(">f8"), x[:8].astype(np.float32), list(range(8)), np.ones((2, 8))):
        net.value_and_jacobian(given)
    read_only = x[:8].copy()
    read_only.flags.writeable = False
    net.value_and_jacobian(read_only)
    for routine in cache._compiled.values():
        assert len(routine.overloads) == 1
        assert not routine._can_compile


def test_a_read_only_package_without_a_home_compiles_in_memory_and_says_so_once(copy, homeless):
    (copy / "kernels" / "__pycache__").touch()  # Nobody, root included, can write below a file.
    twice = SMALL + SMALL.replace("triple", "other")
    found, err = run(twice, copy, **homeless)
    assert found == ["42", "compiled", "42", "compiled"]
    assert err.count(NO_FOLDER) == 1


def test_code_beside_a_package_needs_only_be_readable(copy, homeless):
    assert run(SMALL, copy, **homeless) == (["42", "compiled"], "")
    folder = copy / "kernels" / "__pycache__"
    assert len(list(folder.glob("triple*.nbc"))) == 1
    folder.chmod(0o555)
    try:
        assert run(SMALL, copy, **homeless) == (["42", "found"], "")
    finally:
        folder.chmod(0o755)


def test_the_users_folder_takes_what_the_package_cannot(copy, homeless, tmp_path):
    (copy / "kernels" / "__pycache__").touch()
    for expected in ("compiled", "found"):
        assert run(SMALL, copy, **homeless | {"XDG_CACHE_HOME": str(tmp_path)}) == (["42", expected], "")
    assert len(files(tmp_path / "numba")) == 1


def test_nothing_is_written_below_a_home_that_has_no_name(copy, tmp_path):
    script = f"""
import os, pwd
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
os.chdir({str(tmp_path)!r})
{SMALL}
print(os.path.exists("~"))
"""
    (copy / "kernels" / "__pycache__").touch()
    nowhere = {"NUMBA_CACHE_DIR": None, "HOME": None, "XDG_CACHE_HOME": None}
    found, err = run(script, copy, **nowhere)
    assert found == ["42", "compiled", "False"]
    assert NO_FOLDER in err


def test_ten_processes_that_start_together_are_all_right(tmp_path):
    processes = [start(SMALL, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(10)]
    results = [finish(process) for process in processes]
    assert {(found[0], err) for found, err in results} == {("42", "")}
    (file,) = (tmp_path / "fastjac").iterdir()  # No temporary file is left.
    assert run(SMALL, NUMBA_CACHE_DIR=str(tmp_path))[0] == ["42", "found"]
    assert file.stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


DAMAGES = [
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: b"\0" * len(content),
    lambda content: content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:],
]


def test_a_damaged_file_is_compiled_anew(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    run(SMALL, **environment)
    (file,) = files(tmp_path)
    good = file.read_bytes()
    for number, damage in enumerate(DAMAGES):
        file.write_bytes(damage(good))
        assert run(SMALL, **environment) == (["42", "compiled"], ""), number
    assert run(SMALL, **environment) == (["42", "found"], "")


def test_code_for_another_processor_or_with_other_checks_is_not_used(tmp_path):
    mine = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": None, "NUMBA_CPU_FEATURES": None}
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    for environment in (mine, mine | other, mine | {"NUMBA_BOUNDSCHECK": "1"}):
        assert run(SMALL, **environment)[0] == ["42", "compiled"], environment
    assert run(SMALL, **mine)[0] == ["42", "found"]
    assert run(SMALL, **mine | other)[0] == ["42", "found"]
    assert len(files(tmp_path)) == 3


def test_an_upgraded_package_never_runs_the_old_code(copy, tmp_path):
    """The new version differs in a file that the cached one only depends on, by size and times in nothing."""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run(ACTIVATION, **environment) == (["-1.0", "compiled"], "")
    assert run(ACTIVATION, copy, **environment) == (["-1.0", "found"], "")

    changed = copy / "kernels" / "elementwise.py"
    before, text = changed.stat(), changed.read_text()
    upgraded = text.replace("one=real(1),", "one=real(2),")
    assert upgraded != text
    # As installers with hard links do: another file under the same name.
    replacement = tmp_path / "elementwise.py"
    replacement.write_text(upgraded)
    changed.unlink()
    os.link(replacement, changed)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    assert changed.stat().st_mtime_ns == before.st_mtime_ns

    assert run(ACTIVATION, copy, **environment)[0] == ["-2.0", "compiled"]
    assert run(ACTIVATION, copy, **environment)[0] == ["-2.0", "found"]
    assert run(ACTIVATION, **environment)[0] == ["-1.0", "found"]


def test_a_process_without_the_compiler_is_told(tmp_path):
    process = start(VALUE, NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(tmp_path))
    assert "unset NUMBA_DISABLE_JIT" in process.communicate(timeout=60)[1]
    assert process.returncode == 1
