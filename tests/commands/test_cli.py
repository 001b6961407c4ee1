"""The command line as a user meets it: in a process of its own, with what it prints, writes and returns."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

import fastjac
from fastjac import reference
from fastjac.__main__ import main
from fastjac.commands import demo, picture, progress

DATA = Path(fastjac.__file__).with_name("data")
DIGITS, SAMPLES = DATA / "digits.npz", DATA / "digits_samples.npz"
COMMAND = [sys.executable, "-W", "error", "-m", "fastjac"]
ESCAPE = "\033["


def run(*args, **kwargs):
    kwargs = {"capture_output": True, "encoding": "utf-8", "timeout": 120, **kwargs}
    kwargs["env"] = {**os.environ, "PYTHONIOENCODING": "utf-8", **kwargs.get("env", {})}
    return subprocess.run([*COMMAND, *map(str, args)], **kwargs)


def assert_one_line_error(result, message):
    assert result.returncode == 2, result
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("fastjac")
    assert result.stdout == ""


@pytest.fixture
def samples():
    with np.load(SAMPLES) as arrays:
        return arrays["x"]


def expected(x):
    ys, jacs = zip(
        *(reference.value_and_jacobian(row, fastjac.load(DIGITS).layers) for row in x), strict=True
    )
    return np.array(ys), np.array(jacs)


# --- without a command


def test_demo_shows_digit_check_and_times():
    result = run()
    assert result.returncode == 0, result.stderr
    assert result.stderr in ("", "fastjac: compiling for this processor, once\n")
    lines = result.stdout.splitlines()
    probabilities = [float(line.split()[1]) for line in lines if re.match(r" {3}\d  \d\.\d{4}", line)]
    assert len(probabilities) == 10
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    assert max(probabilities) == probabilities[8] > 0.5
    assert "\u2588\u2588" in result.stdout
    assert " ++ " in result.stdout
    assert "Jacobian agrees with central differences" in lines
    assert re.search(r"fastjac +\d+\.\d+ +\d+\.\d+\n.*article +\d+\.\d+ +\d+\.\d+\n", result.stdout)
    assert ESCAPE not in result.stdout


def test_demo_is_ascii_where_the_terminal_is():
    result = run(env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()
    assert "@@" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("variables, coloured", [({}, True), ({"NO_COLOR": "1"}, False)])
def test_demo_has_colours_on_a_terminal_unless_refused(variables, coloured):
    environment = {**os.environ, **variables}
    if coloured:
        environment.pop("NO_COLOR", None)
    leader, follower = os.openpty()
    with subprocess.Popen(COMMAND, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b"".join(iter(lambda: read_terminal(leader), b""))
    os.close(leader)
    assert process.returncode == 0, shown
    assert (ESCAPE.encode() in shown) == coloured


def read_terminal(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


def test_version_and_help():
    assert run("--version").stdout == f"fastjac {fastjac.__version__}\n"
    shown = run("--help").stdout
    for command in ("jacobian", "check", "compare", "limits"):
        assert f"    {command} " in shown
    assert "--index" in run("jacobian", "--help").stdout


# --- fastjac jacobian


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "csv with names", "big-endian npy"])
def test_jacobian_of_many_samples(tmp_path, samples, kind):
    if kind == "npz":
        inputs = SAMPLES
    elif kind.endswith("npy"):
        inputs = tmp_path / "x.npy"
        np.save(inputs, samples.astype(">f8" if kind.startswith("big") else "f8"))
    else:
        inputs = tmp_path / "x.csv"
        names = ",".join(f"pixel {n}" for n in range(64)) if kind.endswith("names") else ""
        np.savetxt(inputs, samples, delimiter=",", header=names, comments="")
        if not names:
            inputs.write_text(inputs.read_text().lstrip("\n"))
    out = tmp_path / "out.npz"
    result = run("jacobian", DIGITS, inputs, "-o", out)
    assert result.returncode == 0, result.stderr
    assert "64 -> 100 relu -> 10 softmax, float64" in result.stdout
    assert "10 samples" in result.stdout
    with np.load(out, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["jac", "y"]
        y, jac = expected(samples)
        np.testing.assert_allclose(arrays["y"], y, rtol=1e-12, atol=0)
        np.testing.assert_allclose(arrays["jac"], jac, rtol=0, atol=1e-13)
    sample, output, column = np.unravel_index(np.abs(jac).argmax(), jac.shape)
    assert f"|d y['{output}'] / d x[{column}]| = {np.abs(jac).max():.4g} in sample {sample}" in result.stdout


def test_jacobian_of_one_sample_has_no_sample_axis(tmp_path, samples):
    np.save(tmp_path / "x.npy", samples[3])
    out = tmp_path / "out.npz"
    assert run("jacobian", DIGITS, tmp_path / "x.npy", "-o", out).returncode == 0
    with np.load(out) as arrays:
        assert arrays["y"].shape == (10,)
        np.testing.assert_allclose(arrays["jac"], expected(samples[3:4])[1][0], rtol=0, atol=1e-13)


def test_index_gives_one_row(tmp_path, samples):
    out = tmp_path / "out.npz"
    result = run("jacobian", DIGITS, SAMPLES, "-o", out, "--index", 7)
    assert result.returncode == 0, result.stderr
    with np.load(out) as arrays:
        y, jac = expected(samples)
        np.testing.assert_allclose(arrays["y"], y, rtol=1e-12, atol=0)
        np.testing.assert_allclose(arrays["jac"], jac[:, 7], rtol=0, atol=1e-13)
    assert "row      7: y['7']\n" in result.stdout
    assert "|d y['7'] / d x[" in result.stdout


def test_no_samples_give_empty_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 64)))
    out = tmp_path / "out.npz"
    assert run("jacobian", DIGITS, tmp_path / "x.npy", "-o", out).returncode == 0
    with np.load(out) as arrays:
        assert (arrays["y"].shape, arrays["jac"].shape) == ((0, 10), (0, 10, 64))


def test_float32_network_writes_float32(tmp_path):
    net = fastjac.load(DIGITS)
    pairs = [(layer.w, layer.b) for layer in net.layers]
    fastjac.save(fastjac.Network(pairs, dtype=np.float32), tmp_path / "net.npz")
    out = tmp_path / "out.npz"
    assert run("jacobian", tmp_path / "net.npz", SAMPLES, "-o", out).returncode == 0
    with np.load(out) as arrays:
        assert arrays["y"].dtype == arrays["jac"].dtype == np.float32


def test_nan_in_the_inputs_is_told(tmp_path, samples):
    samples[4, 20] = np.nan
    np.save(tmp_path / "x.npy", samples)
    result = run("jacobian", DIGITS, tmp_path / "x.npy", "-o", tmp_path / "out.npz")
    assert result.returncode == 0
    assert "= nan in sample 4" in result.stdout


# --- mistakes


@pytest.fixture
def folder(tmp_path, samples):
    """Files that are wrong in one way each."""
    np.save(tmp_path / "x.npy", samples)
    np.save(tmp_path / "narrow.npy", samples[:, :63])
    np.save(tmp_path / "deep.npy", samples[None])
    np.save(tmp_path / "complex.npy", samples.astype(complex))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=samples, b=samples)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:1000])
    (tmp_path / "cut.npz").write_bytes(SAMPLES.read_bytes()[:1000])
    (tmp_path / "cut_model.npz").write_bytes(DIGITS.read_bytes()[:1000])
    (tmp_path / "words.csv").write_text("a,b\n1,two\n")
    (tmp_path / "ragged.csv").write_text("1,2\n1\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "x.txt").write_text("1 2 3\n")
    (tmp_path / "taken.npz").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "args, message",
    [
        ("jacobian {model} x.npy", "the following arguments are required: -o"),
        ("jacobian none.npz x.npy -o out.npz", "none.npz: No such file"),
        ("jacobian {model} narrow.npy -o out.npz", "narrow.npy has shape"),
    ],
)
def test_mistake_ends_the_process_with_code_2(folder, args, message):
    assert_one_line_error(run(*args.format(model=DIGITS).split(), cwd=folder), message)


@pytest.mark.parametrize(
    "args, message",
    [
        ("jacobian", "required: MODEL, INPUTS, -o"),
        ("jacobian {model} x.npy", "required: -o"),
        ("transpose", "invalid choice: 'transpose'"),
        ("jacobian {model} x.npy -o out.npz --index", "--index: expected one argument"),
        (
            "jacobian {model} x.npy -o out.npz --index seven",
            "--index is seven, but the network's outputs are 0 to 9, or '0', '1', '2' and 7 more",
        ),
        (
            "jacobian {model} x.npy -o out.npz --index 10",
            "--index is 10, but the network's outputs are 0 to 9",
        ),
        (f"jacobian {{model}} x.npy -o out.npz --index {'1' * 5000}", "but the network's outputs are 0 to 9"),
        ("jacobian {model} x.npy -o out.npz --top 0", "--top is 0, expected at least 1"),
        ("jacobian {model} x.npy -o out.npz --image 8x8", "--image needs --plot FILE"),
        (
            "jacobian {model} x.npy -o out.npz --plot p.png --image 8",
            "expected height and width, such as 8x8",
        ),
        (
            "jacobian {model} x.npy -o out.npz --plot p.png --image 8x9",
            "--image is 8x9, 72 pixels, but the network has 64 inputs",
        ),
        ("jacobian {model} x.npy -o out.npz --index -1", "--index is -1, but"),
        ("jacobian none.npz x.npy -o out.npz", "none.npz: No such file"),
        ("jacobian cut_model.npz x.npy -o out.npz", "cut_model.npz: "),
        ("jacobian x.txt x.npy -o out.npz", "x.txt.* expected one of .npz"),
        ("jacobian two.npz x.npy -o out.npz", "two.npz: "),
        ("jacobian {model} none.npy -o out.npz", "cannot read none.npy: No such file"),
        ("jacobian {model} x.txt -o out.npz", "x.txt: inputs are read from .npy, .npz and .csv"),
        (
            "jacobian {model} narrow.npy -o out.npz",
            r"narrow.npy has shape \(10, 63\), but the network takes 64",
        ),
        ("jacobian {model} deep.npy -o out.npz", r"deep.npy has shape \(1, 10, 64\)"),
        ("jacobian {model} complex.npy -o out.npz", "complex.npy has dtype complex128, expected real"),
        ("jacobian {model} objects.npy -o out.npz", "cannot read objects.npy: "),
        ("jacobian {model} empty.npy -o out.npz", "cannot read empty.npy: it is not a .npy file"),
        ("jacobian {model} cut.npy -o out.npz", "cannot read cut.npy: "),
        ("jacobian {model} cut.npz -o out.npz", "cannot read cut.npz: it is not a .npz file"),
        ("jacobian {model} two.npz -o out.npz", "two.npz: it holds the arrays a, b, expected one"),
        ("jacobian {model} words.csv -o out.npz", "cannot read words.csv: .*'two'"),
        ("jacobian {model} ragged.csv -o out.npz", "cannot read ragged.csv: "),
        ("jacobian {model} empty.csv -o out.npz", "cannot read empty.csv: it has no first line"),
        ("jacobian {model} . -o out.npz", "inputs are read from"),
        ("jacobian {model} taken.npz -o out.npz", "cannot read taken.npz: Is a directory"),
        ("jacobian {model} x.npy -o out.txt", "out.txt: the name of this output must end in .npz"),
        ("jacobian {model} x.npy -o none/out.npz", "cannot write none/out.npz: there is no folder none"),
        ("jacobian {model} x.npy -o x.npy/out.npz", "cannot write x.npy/out.npz: there is no folder x.npy"),
        ("jacobian {model} x.npy -o taken.npz", "cannot write taken.npz: it exists and is not a file"),
        ("jacobian {model} x.npy -o out.npz --plot p.jpg", "p.jpg: .* must end in .png or .svg or .pdf"),
        ("check {model}", "required: INPUTS"),
        ("check {model} narrow.npy", r"narrow.npy has shape \(10, 63\)"),
    ],
)
def test_mistake_is_one_line_and_writes_nothing(folder, args, message, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.chdir(folder)
    argv = args.format(model=DIGITS).split()
    try:
        code = main(argv)
    except SystemExit as error:
        code = error.code
    assert_one_line_error(subprocess.CompletedProcess(argv, code, *capsys.readouterr()), message)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_plot_without_matplotlib_is_told_before_any_work(folder):
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    args = ("jacobian", DIGITS, "x.npy", "-o", "out.npz", "--plot", "p.png")
    assert_one_line_error(
        run(*args, cwd=folder, env={"PYTHONPATH": path}), r"--plot needs matplotlib: pip install"
    )
    assert not (folder / "out.npz").exists()


def test_package_that_a_model_needs_is_named(monkeypatch, capsys):
    def load(path):
        raise ImportError("this file needs Keras")

    monkeypatch.setattr(fastjac, "load", load)
    assert main(["check", "net.keras", str(SAMPLES)]) == 2
    assert capsys.readouterr().err == "fastjac: cannot read net.keras: this file needs Keras\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_full_disk_leaves_the_old_file(folder):
    import resource

    assert run("jacobian", DIGITS, SAMPLES, "-o", folder / "other.npz").returncode == 0  # compiles
    (folder / "out.npz").write_bytes(b"old")
    before = sorted(folder.iterdir())
    limit = (20_000, 20_000)  # bytes, less than the 52 KB that are to be written
    result = run(
        *("jacobian", DIGITS, "x.npy", "-o", "out.npz"),
        cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert_one_line_error(result, "cannot write out.npz: File too large")
    assert (folder / "out.npz").read_bytes() == b"old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32" or os.getuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(folder):
    (folder / "locked").mkdir(mode=0o500)
    result = run("jacobian", DIGITS, "x.npy", "-o", "locked/out.npz", cwd=folder)
    assert_one_line_error(result, "cannot write locked/out.npz: Permission denied")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal and SIGINT")
def test_long_work_shows_progress_and_stops_cleanly(tmp_path):
    import fcntl
    import select
    import struct
    import termios

    pytest.importorskip("tqdm")
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (3_000_000, 64))  # a sparse file
    args = ("jacobian", str(DIGITS), "x.npy", "-o", "out.npz", "--index", "0")
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=follower
    ) as process:
        os.close(follower)
        shown = b""
        started = time.monotonic()
        while b" samples/s" not in shown and select.select([leader], [], [], 30)[0]:
            shown += read_terminal(leader)
        process.send_signal(signal.SIGINT)
        shown += b"".join(iter(lambda: read_terminal(leader), b""))
        assert process.stdout.read() == b""
    os.close(leader)
    assert b" samples/s" in shown
    assert time.monotonic() - started > 2
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert shown.rstrip().endswith(b"fastjac: interrupted")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("delay, told", [(0.0, 1), (60.0, 0)])
def test_progress_without_tqdm_is_one_line(monkeypatch, delay, told):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(progress, "DELAY", delay)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.progress(5) as advance:
        for _ in range(5):
            time.sleep(1e-4)
            advance(1)
    assert sys.stderr.getvalue().count("\n") == told


def test_slow_work_is_told_also_into_a_pipe(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    end = time.monotonic() + 60
    with progress.told_if_slow("thinking"):
        while not sys.stderr.getvalue().endswith("\n"):
            assert time.monotonic() < end
    assert sys.stderr.getvalue() == "fastjac: thinking\n"


def test_quick_work_is_not_told(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 60.0)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.told_if_slow("thinking"):
        pass
    assert sys.stderr.getvalue() == ""


def test_the_demo_tells_that_it_compiles(monkeypatch, capsys):
    told = []

    def recorded(what):
        told.append(what)
        monkeypatch.setattr(demo, "told_if_slow", None)
        return progress.told_if_slow(what)

    monkeypatch.setattr(demo, "told_if_slow", recorded)
    monkeypatch.setattr(fastjac, "check_jacobian", lambda net, x: told.append("checked") or check(net, x))
    check = fastjac.check.check_jacobian
    assert main([]) == 0
    assert told == ["compiling for this processor, once", "checked"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently")
def test_reader_that_goes_away_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(COMMAND, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert result.returncode == 1
    assert result.stderr == ""


# --- fastjac check


def test_check_of_a_right_network():
    result = run("check", DIGITS, SAMPLES)
    assert result.returncode == 0, result.stderr
    assert "Jacobian agrees with central differences at 10 of 10 samples" in result.stdout
    assert re.search(r"at jac\['\d', \d+\] of sample \d ", result.stdout)


def test_check_that_can_say_nothing_fails(tmp_path):
    fastjac.save(fastjac.Network([(np.eye(2), np.zeros(2)), (np.eye(2), np.zeros(2))]), tmp_path / "net.npz")
    (tmp_path / "x.csv").write_text("0,0\n1,2\n")
    result = run("check", tmp_path / "net.npz", tmp_path / "x.csv")
    assert result.returncode == 1
    told = "finite differences say nothing at sample 0; it agrees at 1 of 2 samples"
    assert f"Jacobian not checked: {told}\n" in result.stdout
    assert "columns checked: 2, skipped at corners: 2" in result.stdout


def test_check_of_nan_is_a_mistake(tmp_path):
    (tmp_path / "x.csv").write_text(",".join(["nan"] * 64) + "\n")
    assert_one_line_error(run("check", DIGITS, tmp_path / "x.csv"), "x.csv, sample 0: .*finite")


# --- what it is made of


def test_console_script_is_the_same_program():
    try:
        scripts = distribution("fastjac").entry_points.select(group="console_scripts", name="fastjac")
    except PackageNotFoundError:
        pytest.skip("fastjac is not installed, only importable")
    assert [script.load() for script in scripts] == [main]


def test_picture_signs():
    image = np.array([[1.0, 0.3], [-0.01, -0.6]])
    assert picture.saliency(image, colour=False) == [" ++ + ", " .  --"]
    assert picture.saliency(np.zeros((1, 2)), colour=False) == [" .  . "]
    assert ESCAPE in picture.saliency(image, colour=True)[0]
    assert picture.ink(np.array([[0.0, 1.0]]), blocks=False) == ["  @@"]
