"""Peers that are missing, broken or wrong are named; those that are right are timed in alternating rounds."""

import sys
import types

import numpy as np
import pytest

from fastjac.bench import measure, rounds
from fastjac.bench.problem import NotApplicableError, random_problem


@pytest.fixture
def strange_peers(monkeypatch):
    """Peers that are missing, broken, wrong or inapplicable."""

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


def test_missing_and_failing_peers_are_named(strange_peers):
    peers, missing = measure.builders(["numpy, opt", "str", "absent"])
    assert "numpy, as in the article" not in peers
    calls, failed = measure.prepare(random_problem((5, 4, 3)), peers)
    assert set(calls) == {"fastjac", "numpy, optimised"}
    notes = {row.peer: row.note for row in missing + failed}
    assert notes["absent"] == "fastjac.bench.peers.no_such_module is not installed"
    assert notes["strange broken"] == "failed: RuntimeError: out of cheese"
    assert notes["strange other"] == "not applicable: squares only"
    assert notes["strange wrong"].startswith("wrong: its largest error is ")


@pytest.mark.parametrize("name", ["nonsense", "numpy, nonsense", "numpyy", "x"])
def test_a_name_that_no_peer_has_is_refused(name):
    with pytest.raises(ValueError, match=f"no peer's name begins with '{name}'; names begin with fastjac"):
        measure.builders(["numpy", name])


def test_a_family_that_is_not_installed_may_be_named(strange_peers):
    peers, missing = measure.builders(["absent, with more"])
    assert list(peers) == ["fastjac"]
    assert [row.peer for row in missing] == ["absent"]


def test_nothing_is_measured_if_fastjac_is_wrong(monkeypatch):
    monkeypatch.setitem(measure.TOLERANCES, "float64", -1.0)
    with pytest.raises(RuntimeError, match="fastjac wrong"):
        measure.prepare(random_problem((5, 4, 3)), measure.builders(["numpy"])[0])


def timings(**seconds):
    return {name.replace("_", ", "): rounds.Timing([second], 1) for name, second in seconds.items()}


def test_few_rounds_are_enough_where_no_rival_comes_near(monkeypatch):
    asked = []
    found = timings(fastjac=1.0, numpy=4.0) | {"onnxruntime, value alone": rounds.Timing([1.0], 1)}
    monkeypatch.setattr(measure, "alternate", lambda calls, number, seconds: asked.append(number) or found)
    for margin in (2, 5):
        measure.measure({}, 20, 1, margin)
    assert asked == [5, 5, 20]


def test_rows_are_ours_then_rivals_then_the_values_alone(monkeypatch):
    found = timings(fastjac_value=1.0, jax=5.0, fastjac=3.0, numpy=4.0)
    found |= {f"{name}, value alone": rounds.Timing([1.0], 1) for name in ("onnxruntime", "fastjac")}
    monkeypatch.setattr(measure, "alternate", lambda calls, number, seconds: found)
    names = [row.peer for row in measure.measure({}, 1, 1)]
    assert names == [
        "fastjac, value",
        "fastjac",
        "numpy",
        "jax",
        "fastjac, value alone",
        "onnxruntime, value alone",
    ]


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
