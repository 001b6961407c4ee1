"""``fastjac latency`` prints a line for each peer."""

import re
from array import array
from pathlib import Path

import fastjac
from fastjac.__main__ import main
from fastjac.bench.latency import Latency
from fastjac.commands import latency, one_thread

DIGITS = Path(fastjac.__file__).with_name("data") / "digits.npz"


def test_a_line_has_percentiles_calls_blocks_and_collections():
    text = latency.table({"ours": Latency(array("q", [1000] * 999 + [9000]), 2.0, 3)})
    heads, line = text.splitlines()
    assert re.sub(" +", " ", heads) == "us p50 p90 p99 p99.9 max p99.9/p50 calls blocks GC runs"
    assert re.fullmatch(r"ours +1\.00 +1\.00 +1\.00 +\d\.\d\d +9\.00 +\d\.\d\d +1000 +2\.0 +3", line)


def test_the_command_measures_a_model(monkeypatch, capsys):
    monkeypatch.setattr(one_thread, "in_force", lambda: True)
    monkeypatch.setattr(latency, "peers", lambda problem: {"ours": lambda: problem})
    assert main(["latency", str(DIGITS), "--seconds", "1"]) == 0
    text = capsys.readouterr().out
    assert "64 -> 100 relu -> 10 softmax, float64" in text
    assert re.search(r"^ours( +\d+\.\d\d){6} +\d+ +0\.0 +\d+$", text, re.MULTILINE)
    assert "blocks: Python's memory blocks" in text


def test_a_missing_model_is_one_line(monkeypatch, capfd):
    assert main(["latency", "none.npz"]) == 2
    assert capfd.readouterr().err == "fastjac: none.npz: No such file or directory\n"
