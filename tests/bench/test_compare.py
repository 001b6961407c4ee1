"""Every installed peer gives the reference's answer, and the command measures and lists them all."""

import argparse
import importlib
import json
import sys
import types

import numpy as np
import pytest

import fastjac
from fastjac.bench import compare, limits, measure, rounds
from fastjac.bench.problem import TOLERANCES, NotApplicableError, disagreement, random_problem
from fastjac.layers import ACTIVATIONS, HEADS_ONLY

ELEMENTWISE = [name for name in ACTIVATIONS if name not in HEADS_ONLY]
HEADS = ["softmax", "log_softmax", "identity", "sigmoid"]
# Their compilation takes seconds, or they differ from others in little: a few networks are enough.
SLOW = (
    "tensorflow",
    "torch by hand, compiled",
    "jax jacfwd",
    "jax jacrev, arguments",
    "jax by hand, arguments",
)

# The libraries' own affair.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def peers_of(family):
    try:
        return importlib.import_module(f"fastjac.bench.peers.{measure.FAMILIES[family]}").PEERS
    except ModuleNotFoundError as error:
        pytest.skip(f"{family}: {error}")


def agree(family, problem, slow=True):
    for name, build in peers_of(family).items():
        if name.startswith(SLOW) and not slow:
            continue
        try:
            call = build(problem)
        except NotApplicableError:
            continue
        assert disagreement(problem, *call()) <= TOLERANCES[problem.dtype.name], name
        assert disagreement(problem, *call()) <= TOLERANCES[problem.dtype.name], f"{name}, called again"


@pytest.mark.parametrize("family", measure.FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_peers_agree_on_the_article_s_network(family, dtype):
    agree(family, random_problem((13, 9, 4), dtype=dtype))


@pytest.mark.parametrize("family", measure.FAMILIES)
def test_peers_agree_on_a_batch(family):
    agree(family, random_problem((13, 9, 4), batch=3))


@pytest.mark.parametrize("family", measure.FAMILIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sizes", [(5, 3), (6, 9, 4, 8, 3)])
def test_peers_agree_at_any_depth(family, head, sizes):
    agree(family, random_problem(sizes, head=head), slow=head == "log_softmax")


@pytest.mark.parametrize("family", measure.FAMILIES)
@pytest.mark.parametrize("activation", [*ELEMENTWISE, "leaky_relu(0.3)", "leaky_relu(1.5)", "elu(0.7)"])
def test_peers_agree_on_every_activation(family, activation):
    agree(family, random_problem((7, 12, 11, 3), activation, "tanh"), slow=False)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_active_units_is_the_wanted_one(share):
    assert random_problem((20, 16, 8, 3), share=share).active == (16 * share, 8 * share)


def test_a_batch_has_the_share_on_average():
    (active,) = random_problem((20, 16, 3), share=0.25, batch=50).active
    assert active == pytest.approx(4, abs=0.2)


def test_a_wrong_answer_is_seen():
    problem = random_problem((5, 6, 3), batch=2)
    y, jac = random_problem((5, 6, 3), batch=2, seed=1).outputs()
    assert disagreement(problem, y, jac) > 0.1
    assert disagreement(problem, np.full_like(y, np.nan), jac) == np.inf
    with pytest.raises(ValueError, match="shapes"):
        disagreement(problem, y[0], jac)


@pytest.fixture
def strange_peers(monkeypatch):
    """Peers that are missing, broken, wrong, inapplicable or right."""

    def breaks(problem):
        raise RuntimeError("out of\ncheese")

    def refuses(problem):
        raise NotApplicableError("squares only")

    def answers(value):
        return lambda problem: lambda: tuple(np.full_like(array, value) for array in problem.outputs())

    module = types.ModuleType("fastjac.bench.peers.strange")
    module.PEERS = {"strange broken": breaks, "strange other": refuses, "strange wrong": answers(7)}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    absent = {"absent": "no_such_module", "strange": "strange"}
    monkeypatch.setattr(
        measure, "FAMILIES", {key: measure.FAMILIES[key] for key in ("fastjac", "numpy")} | absent
    )


def test_missing_and_failing_peers_are_listed(strange_peers):
    rows = {
        row.peer: row
        for row in measure.measure(random_problem((5, 4, 3)), ["numpy, opt", "str", "absent", "x"], 1, 0)
    }
    assert rows["fastjac"].timing is not None
    assert rows["numpy, optimised"].timing is not None
    assert "numpy, as in the article" not in rows
    notes = {name: row.note for name, row in rows.items() if row.timing is None}
    assert notes["absent"] == "not installed"
    assert notes["x"] == "no peer's name begins so"
    assert notes["strange broken"] == "failed: RuntimeError: out of cheese"
    assert notes["strange other"] == "not applicable: squares only"
    assert notes["strange wrong"].startswith("wrong: its largest error is ")


def test_nothing_is_measured_if_fastjac_is_wrong(monkeypatch):
    monkeypatch.setitem(measure.TOLERANCES, "float64", -1.0)
    with pytest.raises(RuntimeError, match="fastjac: wrong"):
        measure.measure(random_problem((5, 4, 3)), ["numpy"], 1, 0)


def test_few_rounds_are_enough_where_no_peer_comes_near(monkeypatch):
    asked = []
    timing = {"fastjac": rounds.Timing([1.0], 1), "numpy, optimised": rounds.Timing([4.0], 1)}
    monkeypatch.setattr(measure, "alternate", lambda calls, number, seconds: asked.append(number) or timing)
    for margin in (2, 5):
        measure.measure(random_problem((5, 4, 3)), ["numpy, opt"], 20, 1, margin)
    assert asked == [5, 5, 20]


def test_a_call_that_repeats_counts_so_often():
    def call():
        return None

    call.repeats = 10
    timing = rounds.alternate({"call": call}, rounds=1, seconds=1)["call"]
    assert timing.calls % 10 == 0


def test_rounds_alternate_and_end():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = rounds.alternate(calls, rounds=4, seconds=60)
    assert [len(timing.rounds) for timing in timings.values()] == [4, 4]
    changes = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert changes == ["a", "b"] * 5
    assert all(timing.minimum <= timing.median for timing in timings.values())


def test_a_peer_that_used_up_its_time_sits_out_after_three_rounds():
    timings = rounds.alternate({"slow": lambda: None}, rounds=9, seconds=0)
    assert len(timings["slow"].rounds) == 3


def options(*arguments):
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_the_command_prints_a_table_and_writes_json(tmp_path, capfd):
    file = tmp_path / "figures.json"
    arguments = (
        "--shape",
        "6-5-3",
        "4-2",
        "--dtype",
        "float64",
        "--peers",
        "numpy",
        "--rounds",
        1,
        "--json",
        file,
    )
    assert compare.run(options(*arguments)) == 0
    text = capfd.readouterr().out
    assert f"fastjac {fastjac.__version__}, numpy {np.__version__}" in text
    assert "6-5-3 relu softmax, float64; active units: 3 of 5; limit" in text
    assert "numpy, as in the article" in text

    document = json.loads(file.read_text())
    assert {"processor", "python", "versions", "multiply_adds_per_second", "levels", "results"} <= set(
        document
    )
    assert [figures["shape"] for figures in document["results"]] == ["6-5-3", "4-2"]
    for figures in document["results"]:
        ours, *peers = figures["peers"]
        assert ours["peer"] == "fastjac"
        assert ours["ratio"] == 1
        for peer in peers:
            assert "note" in peer or 0 < peer["min_us"] <= peer["median_us"]


def test_a_failure_is_shown(capfd):
    given = options("--shape", "3-2", "--peers", "numpy")
    given.dtype = ["float16"]
    assert compare.run(given) == 1
    assert "TypeError" in capfd.readouterr().err


def test_a_missing_folder_is_told_before_anything_is_measured(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        compare.run(options("--json", tmp_path / "missing" / "figures.json"))


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr(compare, "_GRID", {"N": (4, 16), "H": (8,), "M": (1, 2)})


def test_the_grid_ends_with_its_worst_point(small_grid, capsys):
    given = vars(options("--grid", "--peers", "numpy", "--rounds", 1)) | {"json": None, "plot": None}
    assert compare.main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("numpy, " in line for line in lines) == 9
    assert lines[-1].startswith("worst against libraries, ")


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "figures.png"
    given = vars(options("--shape", "6-5-3", "--peers", "numpy", "--rounds", 1)) | {
        "json": None,
        "plot": str(file),
    }
    assert compare.main(given) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_batch_is_reported_for_each_input():
    given = vars(options("--peers", "numpy", "--rounds", 1))
    problem = random_problem((6, 5, 3), batch=4)
    figures = compare.result(problem, given, limits.measure())
    assert figures["batch"] == 4
    assert "batch of 4, each" in compare.table(figures)
