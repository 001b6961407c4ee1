"""``fastjac jacobian`` from file to file: bounded memory, and never half a file under the final name."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastjac
from support.oracles import Case

COMMAND = [sys.executable, "-m", "fastjac", "jacobian", "model.npz", "x.npy", "-o"]
N, M = 64, 10


@pytest.fixture
def folder(tmp_path):
    net = Case((N, 20, M)).network()
    net.value_and_jacobian(np.zeros((2, N)))  # Nothing is left to compile, and to write to numba's cache.
    fastjac.save(net, tmp_path / "model.npz")
    return tmp_path


def write_inputs(folder, samples, dtype=np.float64):
    """Write inputs to map."""
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", dtype, (samples, N))
    for start in range(0, samples, 10_000):
        part = x[start : start + 10_000]
        part[:] = np.random.default_rng(start).standard_normal(part.shape)
    x.flush()
    return x


def run(folder, out, *options):
    return subprocess.run(
        [*COMMAND, out, *options], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def run_within(folder, out, before="", after=""):
    """Run the command between two pieces of code in its process."""
    call = f"code = main(['jacobian', 'model.npz', 'x.npy', '-o', '{out}'])"
    lines = ["import sys", before, "from fastjac.__main__ import main", call, after, "sys.exit(code)"]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i2"])
@pytest.mark.parametrize("samples", [0, 1, 3000])
def test_npy_holds_the_jacobians(folder, samples, dtype):
    x = write_inputs(folder, samples, dtype)
    result = run(folder, "out.npy")
    assert result.returncode == 0, result.stderr
    assert "written  out.npy: jac, " in result.stdout
    jac = np.load(folder / "out.npy")
    expected = fastjac.load(folder / "model.npz").jacobian(x)
    assert (jac.shape, jac.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(jac, expected, rtol=1e-10, atol=1e-13)


def test_npy_of_one_sample_and_of_one_row(folder):
    x = write_inputs(folder, 500)
    net = fastjac.load(folder / "model.npz")
    assert run(folder, "row.npy", "--index", "3").returncode == 0
    np.testing.assert_allclose(np.load(folder / "row.npy"), net.jacobian(x)[:, 3], rtol=1e-9, atol=1e-13)
    sample = np.array(x[7])  # The file that is mapped is about to be replaced.
    np.save(folder / "x.npy", sample)
    assert run(folder, "out.npy").returncode == 0
    assert np.array_equal(np.load(folder / "out.npy"), net.jacobian(sample))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures in /proc")
@pytest.mark.parametrize("out", ["out.npy", "out.npz"])
def test_memory_stays_bounded(folder, out):
    samples = 100_000
    write_inputs(folder, samples)
    # Not getrusage: what it tells begins with the parent's peak.
    peak = "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    process = run_within(folder, out, after=peak)
    assert process.returncode == 0, process.stderr
    resident = int(process.stdout.split()[-2]) * 1024
    mapped = samples * N * 8
    result = samples * M * N * 8
    assert (folder / out).stat().st_size >= result
    assert resident < 300e6 + mapped < result


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("out", ["out.npy", "out.npz"])
def test_a_full_disk_is_told_and_leaves_the_old_file(folder, out):
    write_inputs(folder, 10_000)
    (folder / out).write_bytes(b"old")
    before = sorted(folder.iterdir())
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))"
    result = run_within(folder, out, before=limit)
    assert result.returncode == 2
    assert result.stderr == f"fastjac: cannot write {out}: File too large\n"
    assert (folder / out).read_bytes() == b"old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="only root mounts a file system"
)
def test_a_really_full_disk(folder):
    write_inputs(folder, 10_000)
    small = folder / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(small)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed")
    try:
        result = run(folder, "small/out.npy")
        assert result.returncode == 2
        assert result.stderr == "fastjac: cannot write small/out.npy: No space left on device\n"
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_it_nothing_half_written_has_the_final_name(folder, number):
    np.lib.format.open_memmap(folder / "x.npy", "w+", np.float64, (1_000_000, N))  # A sparse file.
    with subprocess.Popen([*COMMAND, "out.npy"], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if any(path.suffix == ".tmp" and path.stat().st_size > 10_000_000 for path in folder.iterdir()):
                break
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    names = {path.name for path in folder.iterdir()}
    assert "out.npy" not in names
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors == "fastjac: interrupted\n"
        assert names == {"model.npz", "x.npy"}
