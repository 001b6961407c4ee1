"""``fastjac limits`` prints what the machine allows, and takes networks that exist."""

import math

import pytest

from fastjac.__main__ import main
from fastjac.bench import limits
from fastjac.bench.limits import Level, Machine


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    levels = Level("L1", 32 << 10, 160e9, 80e9), Level("memory", math.inf, 16e9, 8e9)
    machine = Machine("a processor", {"float64": 25e9, "float32": 50e9}, levels)
    monkeypatch.setattr(limits, "measure", lambda: machine)


def test_the_command_prints_the_machine_and_each_limit(capsys):
    assert main(["limits", "--shape", "8-4-2", "5-3", "--dtype", "float32", "--batch", "1", "4"]) == 0
    text = capsys.readouterr().out
    assert "a processor, one core\nfloat64    25.0 billion multiply-adds a second\n" in text
    assert "L1           32 KiB  read  160.0, write   80.0 GB/s\nmemory               read   16.0" in text
    assert text.count(": at least ") == 4
    assert "8-4-2, float32: at least" in text
    assert "5-3, batch of 4, each, float32: at least" in text


def test_both_dtypes_are_the_default(capsys):
    assert main(["limits"]) == 0
    text = capsys.readouterr().out
    assert "500-100-10, float64: at least" in text
    assert "500-100-10, float32: at least" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--activation", "swoosh"], "activation is 'swoosh', expected one of identity"),
        (["--shape", "8"], "'8' is not a shape such as 500-100-10"),
        (["--shape", "8-x"], "'8-x' is not a shape"),
        (["--shape", "8-0-3"], "'8-0-3' is not a shape"),
        (["--batch", "0"], "'0' is not a whole number of at least 1"),
        (["--batch", "two"], "'two' is not a whole number of at least 1"),
        (["--active", "1.5"], "'1.5' is not between 0 and 1"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["limits", *arguments])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
