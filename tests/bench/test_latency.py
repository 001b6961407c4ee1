"""Single calls are timed one by one; the blocks that their results hold are counted."""

import numpy as np
import pytest

from fastjac.bench import latency
from fastjac.bench.latency import ARTICLE, held_blocks
from fastjac.bench.measure import Row
from fastjac.bench.problem import random_problem


@pytest.mark.parametrize(
    ("call", "blocks"),
    [
        (lambda: None, 0),
        (lambda: bytes(100), 1),
        (lambda: len(bytes(100)), 0),  # freed again
        (lambda: (bytes(100), bytes(10_000)), 3),
    ],
)
def test_blocks_are_those_that_the_result_holds(call, blocks):
    assert held_blocks(call, 100) == pytest.approx(blocks, abs=0.1)


def test_every_call_is_timed_in_turns(monkeypatch):
    monkeypatch.setattr(latency, "TURN", 0.001)
    made = []
    calls = {name: lambda name=name: made.append(name) for name in ("a", "b")}
    found = latency.latencies(calls, 0.003)
    assert set(found) == {"a", "b"}
    for name, each in found.items():
        # Besides those timed there are one at the start of each of three turns, and those for the blocks.
        assert made.count(name) == len(each.times) + 3 + 200
        assert each.percentiles() == sorted(each.percentiles())
    changes = [name for i, name in enumerate(made) if i == 0 or made[i - 1] != name]
    assert changes == ["a", "b"] * 4


@pytest.mark.parametrize(
    ("fastest_first", "wanted"),
    [
        (["jax", ARTICLE, "torch"], ["fastjac", "jax", ARTICLE]),
        ([ARTICLE, "jax"], ["fastjac", ARTICLE]),
        ([], ["fastjac"]),
    ],
)
def test_peers_are_ours_the_fastest_rival_and_the_article_s(fastest_first, wanted, monkeypatch):
    names = ["fastjac, kernel alone", "fastjac", *fastest_first, "onnxruntime, value alone"]
    monkeypatch.setattr(latency, "builders", lambda selected: ({}, []))
    monkeypatch.setattr(latency, "prepare", lambda problem, peers: ({name: name for name in names}, []))
    monkeypatch.setattr(
        latency, "measure", lambda calls, rounds, seconds: [Row(name, None) for name in calls]
    )
    assert latency.peers(random_problem((3, 2))) == {name: name for name in wanted}


def test_percentiles_are_microseconds():
    times = latency.array("q", [1000] * 99 + [5000])
    assert latency.Latency(times, 0.0, 0).percentiles()[0] == 1.0
    assert latency.Latency(times, 0.0, 0).percentiles()[-1] == 5.0
    assert np.all(np.diff(latency.PERCENTILES) > 0)
