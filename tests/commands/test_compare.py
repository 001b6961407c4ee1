"""``fastjac compare`` prints a table, a grid or a plot, of random networks or of a user's own."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import fastjac
from fastjac.__main__ import main, parse
from fastjac.bench import compare as figures_of
from fastjac.bench import limits, measure
from fastjac.bench.limits import Level, Machine
from fastjac.commands import compare, one_thread, progress

DIGITS = Path(fastjac.__file__).with_name("data") / "digits.npz"
QUICK = ("--peers", "numpy", "--rounds", "1")


@pytest.fixture
def here(monkeypatch):
    """Measure in this process, on a machine that is known."""
    machine = Machine("a processor", {"float64": 25e9, "float32": 50e9}, (Level("L1", math.inf, 16e9, 8e9),))
    monkeypatch.setattr(limits, "measure", lambda: machine)
    monkeypatch.setattr(one_thread, "in_force", lambda: True)


def run(*arguments):
    return main(["compare", *map(str, arguments)])


def test_a_process_of_its_own_prints_a_table_and_writes_json(tmp_path, capfd):
    file = tmp_path / "figures.json"
    assert run("--shape", "6-5-3", "4-2", "--dtype", "float64", *QUICK, "--json", file) == 0
    shown = capfd.readouterr()
    assert all(line.startswith("fastjac: compiling") for line in shown.err.splitlines())
    assert f"fastjac {fastjac.__version__}, numpy {np.__version__}" in shown.out
    assert "6-5-3 relu softmax, float64; active units: 3 of 5; limit" in shown.out
    assert "4-2 softmax, float64; active units: no hidden layer; limit" in shown.out
    assert "numpy, as in the article" in shown.out

    document = json.loads(file.read_text())
    assert {"processor", "python", "versions", "multiply_adds_per_second", "levels"} <= set(document)
    assert [figures["shape"] for figures in document["results"]] == ["6-5-3", "4-2"]
    for figures in document["results"]:
        ours, *peers = figures["peers"]
        assert ours["peer"] == "fastjac"
        assert ours["ratio"] == 1
        for peer in peers:
            assert "note" in peer or 0 < peer["min_us"] <= peer["median_us"]


def test_a_user_s_own_network_is_measured(here, tmp_path, capsys):
    w = np.random.default_rng(0).standard_normal((4, 4)) / 2
    net = fastjac.Network([(w, None), (w, None), (w[:, :3], None)], ["elu(0.5)", "tanh"], "log_softmax", "f4")
    fastjac.save(net, tmp_path / "net.npz")
    file = tmp_path / "figures.json"
    assert run(tmp_path / "net.npz", *QUICK, "--batch", 2, "--json", file) == 0
    lines = capsys.readouterr().out.splitlines()
    (title,) = (line for line in lines if "4-4-4-3" in line)
    assert title.startswith(
        f"{tmp_path / 'net.npz'}: 4-4-4-3 elu(0.5), tanh log_softmax, float32, batch of 2"
    )
    (figures,) = json.loads(file.read_text())["results"]
    assert figures["model"] == str(tmp_path / "net.npz")
    assert {peer["peer"] for peer in figures["peers"] if "ratio" in peer} == {"fastjac", "numpy, optimised"}


def test_a_user_s_own_network_may_be_cast(here, capsys):
    assert run(DIGITS, *QUICK, "--dtype", "float32") == 0
    shown = capsys.readouterr().out
    assert "64-100-10 relu softmax, float32; " in shown
    assert "float64;" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--peers", "nonsense"],
            "fastjac: --peers: no peer's name begins with 'nonsense'; names begin with",
        ),
        (["--peers", "numpy", "numpy, slow"], "fastjac: --peers: no peer's name begins with 'numpy, slow';"),
        (["none.npz"], "fastjac: none.npz: No such file or directory"),
        ([DIGITS, "--grid"], f"fastjac: --grid describes random networks, but {DIGITS} is given"),
        ([DIGITS, "--shape", "3-2"], f"fastjac: --shape describes random networks, but {DIGITS} is given"),
        ([DIGITS, "--head", "tanh"], f"fastjac: --head describes random networks, but {DIGITS} is given"),
        (["--json", "missing/figures.json"], "fastjac: missing: No such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_2(arguments, message, here, capsys):
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1


def test_a_mistake_in_the_other_process_is_passed_on(capfd):
    assert run("--peers", "nonsense") == 2
    shown = capfd.readouterr()
    assert shown.err.startswith("fastjac: --peers: no peer's name begins with 'nonsense'; ")
    assert shown.err.count("\n") == 1


def test_a_wrong_fastjac_fails(here, monkeypatch, capsys):
    monkeypatch.setitem(measure.TOLERANCES, "float64", -1.0)
    assert run("--shape", "3-2", *QUICK) == 1
    assert capsys.readouterr().err.startswith("fastjac: fastjac wrong: its largest error is ")


def test_the_grid_ends_with_its_worst_point(here, monkeypatch, capsys):
    monkeypatch.setattr(figures_of, "_GRID", {"N": (4, 16), "H": (8,), "M": (1, 2)})
    assert run("--grid", *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("numpy, " in line for line in lines) == 9
    assert lines[-1].startswith("worst against libraries, ")


def test_the_worst_point_is_no_value_alone():
    def figures(ratio, **others):
        peers = [
            {"peer": "fastjac", "ratio": 1, "min_us": 1.0},
            {"peer": "onnxruntime, value alone", "ratio": 0.1},
        ]
        peers += [{"peer": "jax", "ratio": ratio}, {"peer": "plain C", "ratio": ratio / 2}]
        return {"shape": "3-2", "dtype": "float64", "peers": peers, **others}

    libraries, plain_c = compare.worst([figures(3.0), figures(1.5, shape="5-4")])
    assert libraries.startswith("worst against libraries, 0 of 2 lost:")
    assert "5-4" in libraries
    assert "1.50 jax" in libraries
    assert plain_c.startswith("worst against plain C, 1 of 2 lost:")


def test_the_plot_is_drawn(here, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "figures.png"
    assert run("--shape", "6-5-3", *QUICK, "--plot", file) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_building_the_peers_is_told_once(here, monkeypatch):
    told = []
    monkeypatch.setattr(
        compare, "told_if_slow", lambda what: told.append(what) or progress.told_if_slow(what)
    )
    assert run("--shape", "3-2", "4-2", *QUICK) == 0
    assert told == ["compiling fastjac and its peers for this processor"]


# --- the other process


def test_libraries_are_told_to_use_one_thread(monkeypatch, capfd):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert not one_thread.in_force()
    code = "from fastjac.commands import one_thread; print(one_thread.in_force())"
    assert one_thread.run([sys.executable, "-c", code]) == 0
    assert capfd.readouterr().out == "True\n"


def test_the_arguments_are_passed_on_as_they_were(monkeypatch):
    asked = []
    monkeypatch.setattr(one_thread, "run", lambda command: asked.append(command) or 7)
    monkeypatch.setattr(one_thread, "in_force", lambda: False)
    assert run("net.npz", "--dtype", "float32") == 7
    assert asked == [[sys.executable, "-m", "fastjac", "compare", "net.npz", "--dtype", "float32"]]
    assert parse(["limits"]).argv == ["limits"]


@pytest.mark.parametrize(("code", "noise"), [(0, ""), (2, ""), (1, "a library warns\n")])
def test_noise_is_shown_only_after_a_crash(code, noise, capfd):
    program = (
        "import sys; print('a library warns\\nfastjac: compiling', file=sys.stderr);"
        f"print('result'); sys.exit({code})"
    )
    assert one_thread.run([sys.executable, "-c", program]) == code
    assert capfd.readouterr() == ("result\n", f"fastjac: compiling\n{noise}")
